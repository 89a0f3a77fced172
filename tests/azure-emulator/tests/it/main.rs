//! The emulator from outside: over its proxy, with its authority, as clients see it.

mod control;
mod devops;
mod faults;
mod git;
mod program;
mod support;
mod tokens;
