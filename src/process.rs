//! What the process takes from itself before it reads a secret (finding 14, P1).

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask};

/// No core file, no ptrace by the same user, no file for others. What a kernel refuses is told.
pub fn harden() {
    umask(rustix::fs::Mode::from_bits_retain(0o077));
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    let refused = [
        setrlimit(Resource::Core, no_core).err(),
        set_dumpable_behavior(DumpableBehavior::NotDumpable).err(),
    ];
    for error in refused.into_iter().flatten() {
        tracing::warn!(error = &error as &dyn std::error::Error, "the process could not be hardened");
    }
}
