//! Compiles the contract in `proto/` to Rust, without `protoc`, and keeps its descriptor for reflection.

use std::path::PathBuf;
use std::{env, error, fs};

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={PROTO_ROOT}");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    let mut compiler = protox::Compiler::new([PROTO_ROOT])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;

    // With the comments, since `grpcurl describe` shows them: they are the API reference.
    fs::write(out_dir.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;

    // Without them: they are written for readers of the proto, and rustdoc would take them for markup.
    let mut descriptors = compiler.file_descriptor_set();
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .skip_debug(SECRET_MESSAGES)
        .compile_fds(descriptors)?;
    Ok(())
}

const PROTO_ROOT: &str = "proto";

const FILES: [&str; 6] = [
    "azdo/broker/v1/reason.proto",
    "azdo/broker/v1/types.proto",
    "azdo/broker/v1/credential_broker.proto",
    "azdo/broker/v1/connections.proto",
    "azdo/broker/v1/integrations.proto",
    "azdo/broker/v1/operations.proto",
];

/// Messages with a field marked SECRET or WRITE-ONLY, or a URL that carries one. The derived `Debug` would
/// print it (promise P1), so they get none but what `src/pb.rs` writes by hand: the name alone.
const SECRET_MESSAGES: [&str; 12] = [
    ".azdo.broker.v1.GetServiceUserTokenResponse",
    ".azdo.broker.v1.GetDeveloperTokenRequest",
    ".azdo.broker.v1.GetDeveloperTokenResponse",
    ".azdo.broker.v1.GetGitCredentialRequest",
    ".azdo.broker.v1.GetGitCredentialResponse",
    ".azdo.broker.v1.ListReadableReposRequest",
    ".azdo.broker.v1.BeginLinkResponse",
    ".azdo.broker.v1.CompleteLinkRequest",
    ".azdo.broker.v1.ConfirmLinkRequest",
    ".azdo.broker.v1.ImportItem",
    ".azdo.broker.v1.PutIntegrationRequest",
    ".azdo.broker.v1.AddClientCredentialRequest",
];
