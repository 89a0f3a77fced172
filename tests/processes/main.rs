//! The real programs, from outside: what is started, killed, fed nonsense and looked at on disk.
//!
//! Each test has a folder of its own, an emulator inside the test's process, and the binaries that are
//! shipped: `azdo-broker` and `git-credential-azdo-broker`, called by command line, git, gRPC and a
//! browser. What can be shown without a process of its own stands in `tests/it`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod bad_files;
mod bad_input;
mod browser;
mod canaries;
mod command_line;
mod git;
mod git_work;
mod helper;
mod kill;
mod restore;
mod stop;
mod store_copy;
mod support;
