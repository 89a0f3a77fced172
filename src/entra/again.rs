//! One more try within the same call where Entra was out for a moment (azure.md 1.10).
//!
//! Only what may be sent twice: a refresh token that goes on working, and the app's own credentials, which
//! spend nothing. Never a code. An answer that tells a wait, or throttles, is obeyed by the floors above
//! instead. Both tries share one deadline, so that a request nobody answered for all of it is not repeated.

use std::time::Duration;

use tokio::time::Instant;

use super::token::{DEADLINE, Grant};
use super::{Answered, App, Entra, EntraError, Verdict};

impl Entra {
    pub(super) async fn ask_twice(&self, app: &App<'_>, grant: &Grant<'_>) -> Result<Answered, EntraError> {
        let began = Instant::now();
        let first = match self.ask(app, grant, DEADLINE).await {
            Err(error) if is_a_moment_of_outage(&error) => error,
            answered => return answered,
        };
        let left = (DEADLINE - AGAIN_AFTER).saturating_sub(began.elapsed());
        if left < WORTH_IT {
            return Err(first);
        }
        tracing::info!(error = &first as &dyn std::error::Error, "Entra is asked once more");
        self.clock.sleep(AGAIN_AFTER).await;
        let second = self.ask(app, grant, left).await;
        second.map_err(|error| EntraError {
            may_have_acted: error.may_have_acted || first.may_have_acted,
            ..error
        })
    }
}

fn is_a_moment_of_outage(error: &EntraError) -> bool {
    error.verdict == Verdict::Transient && error.retry_after.is_none() && error.rescued.is_none()
}

const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// With less time than this the second try would mostly be cut off.
const WORTH_IT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::RefreshToken;

    #[test]
    fn an_outage_that_tells_no_wait_is_tried_again_and_nothing_else() {
        let outage = || EntraError::new(Verdict::Transient);
        assert!(is_a_moment_of_outage(&outage()));
        let rescued = Some(RefreshToken::new("x".to_owned()));
        for other in [
            EntraError { retry_after: Some(Duration::from_secs(1)), ..outage() },
            EntraError { rescued, ..outage() },
            EntraError::new(Verdict::Throttled),
            EntraError::new(Verdict::Unknown),
            EntraError::new(Verdict::ClientCredential),
            EntraError::new(Verdict::Relink { unmistakable: false }),
        ] {
            assert!(!is_a_moment_of_outage(&other), "{other:?}");
        }
    }
}
