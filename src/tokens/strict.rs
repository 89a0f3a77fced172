//! Where each grant works once: what is noted before one is spent, and what becomes of an answer that
//! did not arrive (design.md 6.6).
//!
//! # Invariants
//!
//! 1. Before a grant is spent its row says that it is lost. An answer overwrites that; without one, be it
//!    that the connection broke or that the process died, it stands, and a person links again.
//! 2. A loss that was foreseen is taken back once it is sure that the grant was not used: before anything else
//!    is waited for, and until the store took it or another write won.
//! 3. A grant that may have been used is not used again: whoever issued it would take the second use for
//!    a theft, and revoke all that came from the same sign-in.
//!
//! Of no concern where a used grant goes on working, as Entra's do (azure.md 2.2).

use super::Refresh;
use super::refresh::RETRY_STORE;
use super::setback::Setback;
use crate::clock::later;
use crate::connection::Failure;
use crate::entra::{EntraError, Rotation};
use crate::reason::{Problem, Reason};
use crate::vault::{Hold, NEVER};

impl Refresh {
    pub(super) fn is_strict(&self) -> bool {
        self.entra.rotation() == Rotation::Strict
    }

    /// Notes the loss that a missing answer would be. Without the note nothing may be spent.
    pub(super) async fn foresee_loss(&self, hold: &Hold) -> Result<(), Setback> {
        let until = later(self.store_now(hold), NEVER);
        match self.vault.foresee(hold, &self.loss(hold), until).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let detail = "another refresh of this connection overtook this one";
                let problem = Problem::new(Reason::UpstreamUnavailable, detail).retry_after(RETRY_STORE);
                Err(Setback::new(problem, None, RETRY_STORE))
            }
            Err(error) => Err(self.setback(hold, error.problem(), None, RETRY_STORE)),
        }
    }

    /// Takes the note back, because the grant was not used, and may not be for a while. False: it stands.
    pub(super) async fn take_loss_back(&self, hold: &Hold) -> bool {
        let taken_back = self.vault.take_back(hold).await;
        if let Err(error) = &taken_back {
            tracing::warn!(
                connection.key = %hold.key, error = error as &dyn std::error::Error,
                "a loss that did not come was not taken back yet"
            );
        }
        taken_back.is_ok()
    }

    /// Whether the grant went with the answer.
    pub(super) fn is_lost_with(&self, error: &EntraError) -> bool {
        self.is_strict() && error.may_have_acted && error.rescued.is_none()
    }

    pub(super) fn lost_grant(&self, hold: &Hold) -> Setback {
        let problem = problem_of_loss(hold.key.role.kind());
        Setback::new(problem, Some(self.loss(hold)), NEVER)
    }

    fn loss(&self, hold: &Hold) -> Failure {
        Failure::lost(self.store_now(hold))
    }
}

pub(super) fn problem_of_loss(kind: &str) -> Problem {
    let detail = format!("the answer to the last refresh of the account's {kind} was lost");
    let problem = Problem::new(Reason::RelinkRequired, detail);
    Problem { remedy: Some(crate::remedy::GRANT_LOST), ..problem }
}
