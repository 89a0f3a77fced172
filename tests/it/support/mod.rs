//! What every test starts from: a broker, an emulator, one clock, and people with browsers.

mod app;
mod browser;
mod client;
mod files;
mod linking;
mod replicas;

pub(crate) use app::{PATIENCE, TestApp};
pub(crate) use browser::{Browser, Page};
pub(crate) use client::{
    Client, assert_invalid, assert_refused, begin_request, developer, list_request, reason_of, service_user,
};
pub(crate) use files::{CLIENT_ID, Files, IDE_BACKEND, SECRET, STRANGER, TENANT};
pub(crate) use linking::SignedIn;
pub(crate) use replicas::Replicas;
