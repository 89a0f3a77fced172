//! The generated types of the contract in `proto/`.
//!
//! Only faces and the client use them: below, requests are parsed into types of our own. Messages
//! that carry a secret get no derived `Debug` (see `build.rs`); what stands here shows their name alone.

#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    reason = "generated"
)]
mod generated {
    tonic::include_proto!("azdo.broker.v1");
}

pub use generated::*;

/// The contract with its comments, for reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

macro_rules! shows_its_name_alone {
    ($($message:ident),* $(,)?) => {
        $(impl std::fmt::Debug for $message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($message), "(..)"))
            }
        })*
    };
}

shows_its_name_alone!(
    GetServiceUserTokenResponse,
    GetDeveloperTokenRequest,
    GetDeveloperTokenResponse,
    GetGitCredentialRequest,
    GetGitCredentialResponse,
    ListReadableReposRequest,
    BeginLinkResponse,
    CompleteLinkRequest,
    ConfirmLinkRequest,
    ImportItem,
    PutIntegrationRequest,
    AddClientCredentialRequest,
);
