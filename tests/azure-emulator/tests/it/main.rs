//! The emulator from outside: over its proxy, with its authority, as clients see it.

mod assertions;
mod control;
mod devops;
mod faults;
mod git;
mod many;
mod principals;
mod program;
mod support;
mod tokens;
