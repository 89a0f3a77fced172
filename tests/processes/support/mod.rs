//! What the tests share: a folder, a running broker beside an emulator, and ways to call it.

mod broker;
mod given;
mod home;
mod job;
mod run;
mod wait;
mod way;

pub(crate) use broker::Broker;
pub(crate) use given::Given;
pub(crate) use home::Home;
pub(crate) use job::{ANALYTICS, Job, OTHER_ORGANIZATION};
pub(crate) use run::{AZDO_BROKER, HELPER, Ran, run, run_with_input, tool};
pub(crate) use wait::{PATIENCE, until};
pub(crate) use way::Way;

/// The account of all tests, and what the emulator's example world knows of its app.
pub(crate) const ACCOUNT: &str = "acme";
pub(crate) const ORGANIZATION: &str = "contoso";
pub(crate) const TENANT: &str = "10000000-0000-4000-a000-000000000001";
pub(crate) const CLIENT: &str = "ac3e0000-0000-4000-a000-000000000001";
pub(crate) const SECRET: &str = "emu8Q~acme-secret.value+one/x=";
pub(crate) const SERVICE_USER: &str = "svc@contoso.com";
