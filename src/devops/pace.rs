//! How fast Azure DevOps is asked: by one identity a few requests at once, and not before it may again; by
//! all of them a few lists at once (P8).
//!
//! # Invariants
//!
//! 1. Azure DevOps counts by identity (azure.md 3.10), so two accounts of one service user share a pace, and
//!    so do the use cases: there is one [`Paces`] in a process.
//! 2. Lists come last: they leave the last place, and a quarter of what Azure DevOps allows, to others.
//!
//! Releases are not paced: they ask Entra, if anybody. Nor are clones, of which nothing is seen here; it is for
//! them that lists stand back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{DevopsError, Paced, Told};
use crate::clock::Clock;
use crate::connection::Identity;
use crate::ids::{ObjectId, TenantId};

/// The paces of all identities, and the places of the lists in the making.
pub struct Paces {
    clock: Arc<dyn Clock>,
    by_identity: Mutex<HashMap<(TenantId, ObjectId), Arc<Pace>>>,
    /// A list of a large organization takes memory and time.
    lists: Arc<Semaphore>,
}

/// The pace of one identity.
pub struct Pace {
    clock: Arc<dyn Clock>,
    places: Semaphore,
    /// Of the places, those for lists.
    places_for_lists: Semaphore,
    pauses: Mutex<Pauses>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// Whether somebody belongs to the organization: a person or an administrator waits for it.
    Membership,
    /// What there is to clone, and who may.
    List,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pauses {
    all: Pause,
    /// Lists wait for both.
    lists: Pause,
}

/// Not before `until`, by the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    until: Duration,
    /// Azure DevOps refused; else it only asked to slow down.
    is_refusal: bool,
}

impl Paces {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, by_identity: Mutex::default(), lists: Arc::new(Semaphore::new(LISTS_MAX)) }
    }

    /// A place for one list, to be held while it is made; none while too many are.
    pub fn list_place(&self) -> Option<OwnedSemaphorePermit> {
        self.lists.clone().try_acquire_owned().ok()
    }

    pub fn of(&self, identity: &Identity) -> Arc<Pace> {
        let mut by_identity = self.by_identity.lock().expect("no panic while held");
        if PACES_MAX <= by_identity.len() {
            let now = self.clock.now().monotonic;
            by_identity
                .retain(|_, pace| 1 < Arc::strong_count(pace) || now < pace.pause(Purpose::List).until);
        }
        let key = (identity.tenant.clone(), identity.object_id.clone());
        by_identity.entry(key).or_insert_with(|| Arc::new(Pace::new(self.clock.clone()))).clone()
    }
}

impl Pace {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            places: Semaphore::new(AT_ONCE_MAX),
            places_for_lists: Semaphore::new(AT_ONCE_MAX - 1),
            pauses: Mutex::default(),
        }
    }

    /// Runs one request when it is its turn. While the identity is throttled nothing is asked.
    pub async fn run<T>(
        &self,
        purpose: Purpose,
        request: impl Future<Output = Result<Paced<T>, DevopsError>>,
    ) -> Result<T, DevopsError> {
        let _among_lists = match purpose {
            Purpose::List => Some(self.places_for_lists.acquire().await.expect(NEVER_CLOSED)),
            Purpose::Membership => None,
        };
        let _place = self.places.acquire().await.expect(NEVER_CLOSED);
        let Pause { until, is_refusal } = self.pause(purpose);
        let wait = until.saturating_sub(self.clock.now().monotonic);
        if is_refusal && !wait.is_zero() || SLOW_DOWN_MAX < wait {
            return Err(DevopsError::Throttled { retry_after: Some(wait) });
        }
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
        let answered = request.await;
        match &answered {
            Ok(Paced { told, .. }) => self.note(*told),
            Err(DevopsError::Throttled { retry_after }) => {
                let until = self.after(retry_after.unwrap_or(THROTTLED_PAUSE));
                self.pauses().all.prolong(until, true);
            }
            Err(_) => {}
        }
        Ok(answered?.value)
    }

    fn note(&self, told: Told) {
        let mut pauses = self.pauses();
        if let Some(wait) = told.slow_down {
            pauses.all.prolong(self.after(wait), false);
        }
        if let Some(wait) = told.keep_free {
            pauses.lists.prolong(self.after(wait), false);
        }
    }

    fn pause(&self, purpose: Purpose) -> Pause {
        let Pauses { all, lists } = *self.pauses();
        match purpose {
            Purpose::List if all.until < lists.until => lists,
            Purpose::List | Purpose::Membership => all,
        }
    }

    fn pauses(&self) -> MutexGuard<'_, Pauses> {
        self.pauses.lock().expect("no panic while held")
    }

    fn after(&self, wait: Duration) -> Duration {
        self.clock.now().monotonic.saturating_add(wait)
    }
}

impl Pause {
    fn prolong(&mut self, until: Duration, is_refusal: bool) {
        if self.until < until {
            *self = Self { until, is_refusal };
        }
    }
}

const NEVER_CLOSED: &str = "nobody closes the semaphore";
/// How many lists may be in the making at once.
pub const LISTS_MAX: usize = 16;
/// Requests of one identity at once (azure.md 3.10).
const AT_ONCE_MAX: usize = 4;
/// A longer wait than this does not fit into a call; it is told instead.
const SLOW_DOWN_MAX: Duration = Duration::from_secs(30);
/// Throttled without a word for how long.
const THROTTLED_PAUSE: Duration = Duration::from_secs(30);
/// Beyond this, those that nobody uses are forgotten.
const PACES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use super::*;
    use crate::testing::ManualClock;

    fn identity() -> Identity {
        let id = "10000000-0000-4000-a000-000000000001";
        Identity {
            tenant: id.parse().unwrap(),
            object_id: id.parse().unwrap(),
            login: "svc@contoso.com".into(),
            display_name: String::new(),
        }
    }

    fn paces() -> (Arc<ManualClock>, Paces) {
        let clock = Arc::new(ManualClock::default());
        (clock.clone(), Paces::new(clock))
    }

    fn answered(told: Told) -> Ready<Result<Paced<()>, DevopsError>> {
        ready(Ok(Paced { value: (), told }))
    }

    const NOTHING: Told = Told { slow_down: None, keep_free: None };

    #[tokio::test]
    async fn a_throttled_identity_asks_nothing_until_it_may() {
        let (clock, paces) = paces();
        let throttled = async { Err::<Paced<()>, _>(DevopsError::Throttled { retry_after: None }) };
        assert!(paces.of(&identity()).run(Purpose::Membership, throttled).await.is_err());
        let never = async { panic!("was asked") };

        let refused = paces.of(&identity()).run::<()>(Purpose::Membership, never).await;

        assert!(matches!(refused, Err(DevopsError::Throttled { retry_after: Some(THROTTLED_PAUSE) })));
        clock.advance(THROTTLED_PAUSE);
        assert!(paces.of(&identity()).run(Purpose::List, answered(NOTHING)).await.is_ok());
    }

    #[tokio::test]
    async fn who_is_asked_to_slow_down_waits_before_the_next_request() {
        let (clock, paces) = paces();
        let pace = paces.of(&identity());
        pace.run(Purpose::List, answered(Told { slow_down: Some(Duration::from_secs(7)), ..NOTHING }))
            .await
            .unwrap();

        let mut next = tokio_test::task::spawn(pace.run(Purpose::List, answered(NOTHING)));

        assert!(next.poll().is_pending());
        clock.advance(Duration::from_secs(7));
        assert!(next.poll().is_ready());
    }

    /// P8: clones use the same identity and are not seen here.
    #[tokio::test]
    async fn lists_stand_back_for_what_azure_devops_has_left() {
        let (clock, paces) = paces();
        let pace = paces.of(&identity());
        let keep_free = |secs| Told { keep_free: Some(Duration::from_secs(secs)), ..NOTHING };
        pace.run(Purpose::List, answered(keep_free(20))).await.unwrap();

        let mut list = tokio_test::task::spawn(pace.run(Purpose::List, answered(keep_free(60))));
        assert!(list.poll().is_pending());
        assert!(pace.run(Purpose::Membership, answered(NOTHING)).await.is_ok(), "others go on");

        clock.advance(Duration::from_secs(20));
        assert!(list.poll().is_ready());
        drop(list);
        let told = pace.run(Purpose::List, answered(NOTHING)).await;
        let Err(DevopsError::Throttled { retry_after: Some(wait) }) = told else { panic!("was let through") };
        assert_eq!(wait, Duration::from_mins(1));
    }

    #[tokio::test]
    async fn lists_leave_the_last_place_to_others() {
        let (_clock, paces) = paces();
        let pace = paces.of(&identity());
        let list = || {
            tokio_test::task::spawn(pace.run(Purpose::List, std::future::pending::<Result<Paced<()>, _>>()))
        };
        let mut lists: Vec<_> = (0..AT_ONCE_MAX).map(|_| list()).collect();
        assert!(lists.iter_mut().all(|one| one.poll().is_pending()));
        assert!(pace.run(Purpose::Membership, answered(NOTHING)).await.is_ok());
    }

    #[test]
    fn a_few_lists_at_once_have_a_place() {
        let (_clock, paces) = paces();
        let mut taken: Vec<_> = (0..LISTS_MAX).map(|_| paces.list_place().unwrap()).collect();
        assert!(paces.list_place().is_none());
        taken.pop();
        assert!(paces.list_place().is_some());
    }

    #[tokio::test]
    async fn one_identity_has_a_few_requests_at_once() {
        let (_clock, paces) = paces();
        let pace = paces.of(&identity());
        let waiting = || {
            tokio_test::task::spawn(
                pace.run(Purpose::Membership, std::future::pending::<Result<Paced<()>, _>>()),
            )
        };
        let mut all: Vec<_> = (0..AT_ONCE_MAX).map(|_| waiting()).collect();
        assert!(all.iter_mut().all(|one| one.poll().is_pending()));

        let mut fifth = tokio_test::task::spawn(pace.run(Purpose::Membership, answered(NOTHING)));
        assert!(fifth.poll().is_pending());

        all.pop();
        assert!(fifth.is_woken() && fifth.poll().is_ready());
    }
}
