//! The one place where tests wait: for a value, in bounds, never for a time.

use std::time::Duration;

/// Looks until there is something to see.
///
/// # Panics
///
/// After [`PATIENCE`], naming what did not come.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    let looking = async {
        loop {
            tick.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("{what}: waited in vain"))
}

/// Generous, because two cores may be shared by many tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(20);
