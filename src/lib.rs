//! azdo-broker.

pub mod backoff;
pub mod caller;
pub mod clock;
pub mod connection;
pub mod event;
pub mod git_url;
pub mod ids;
pub mod reason;
pub mod secret;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub mod files;

pub mod outgoing;

pub mod audit;
pub mod devops;
pub mod entra;
pub mod keys;
pub mod policy;
pub mod seal;
pub mod store;
pub mod tls;

pub mod accounts;
pub mod admin;
pub mod config;
pub mod gate;
pub mod integrations;
pub mod lifecycle;
pub mod link_pages;
pub mod links;

pub mod app;
pub mod client;
pub mod grpc;
pub mod offline;
pub mod pb;
pub mod process;
pub mod release;
pub mod repos;
pub mod tasks;
pub mod telemetry;
pub mod tokens;
pub mod vault;

pub mod cli;
pub mod git_credential;
