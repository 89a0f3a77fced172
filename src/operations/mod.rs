//! What operators do about the broker itself. Here: accepting that a backup was restored.
//!
//! # Invariants
//!
//! 1. The permission `operate` is about the broker, and decided before anything is looked at (P2).
//! 2. Each connection that is accepted is recorded, before it is: it may be one that somebody ended.

mod restore;

use std::sync::Arc;

use crate::gate::Gate;
use crate::tasks::Tasks;
use crate::tokens::Tokens;
use crate::vault::Vault;

pub use restore::{RestoreScope, Restored};

/// Cheap to clone.
#[derive(Clone)]
pub struct Operations {
    pub gate: Gate,
    pub vault: Arc<Vault>,
    pub tokens: Tokens,
    pub tasks: Tasks,
}
