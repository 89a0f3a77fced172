//! The emulator from outside: over its proxy, with its authority, as clients see it.

mod assertions;
mod control;
mod devops;
mod devops_faults;
mod faults;
mod git;
mod many;
mod principals;
mod program;
mod readme;
mod scopes;
mod support;
mod tokens;
