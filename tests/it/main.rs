//! The broker as its callers and browsers meet it: `app::build` against the emulator, over real
//! sockets, mTLS and pages. One file per part of the surface; one clock for broker and emulator.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod support;

mod admin;
mod assertions;
mod connections;
mod crash;
mod credentials;
mod developers;
mod disconnect;
mod doctor;
mod erasure;
mod failover;
mod git_credential;
mod import;
mod import_proofs;
mod integrations;
mod link_begin;
mod link_confirm;
mod link_platform;
mod link_refusals;
mod link_return;
mod link_verify;
mod pages;
mod policy;
mod public_urls;
mod reflection_health;
mod refresh;
mod release;
mod replicas;
mod repo_budget;
mod repo_pages;
mod repo_snapshots;
mod repos;
mod rollback;
mod service_principal;
mod store_faults;
mod strict_rotation;
mod suspend;
mod uncommitted;
mod watch;
mod watch_ends;
