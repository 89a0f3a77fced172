//! Entra ID, Azure DevOps REST and Azure Repos on loopback, for tests and demos.
//!
//! The library starts an emulator inside a test; the program runs one for others. It is strict
//! where the real services are, and has a switch for each way they were seen to differ. It
//! shares no code with what is tested against it.
//!
//! ```no_run
//! # async fn example() -> Result<(), azure_emulator::StartError> {
//! use azure_emulator::{Emulator, Options};
//!
//! let emulator = Emulator::start(Options::default()).await?;
//! let proxy = emulator.proxy_url();
//! let ca = emulator.ca_pem();
//! # Ok(())
//! # }
//! ```

mod authority;
mod call;
mod clock;
mod control;
mod credentials;
mod cut;
mod devops;
mod dispatch;
mod doors;
mod emulator;
mod entra;
mod fault;
mod gate;
mod generated;
mod hosts;
mod keys;
mod random;
mod record;
mod seeding;
mod signin;
mod state;
mod switches;
mod world;

pub use authority::AuthorityError;
pub use control::Change;
pub use emulator::{Emulator, Options, Ports, StartError};
pub use fault::{ChallengeKind, Fault};
pub use random::fingerprint;
pub use record::{Recorded, TokenRequest};
pub use switches::Within;
pub use world::{
    App, FederatedCredential, Generated, Licence, Member, Organization, Project, Repository, Secret,
    ServicePrincipal, Tenant, TrustedIssuer, User, World, WorldError,
};
