//! What expires: counted for metrics, and told in the log at each step towards the end.
//!
//! Client credentials by what was told of them, grants by Entra's ninety days without use. No account and no
//! connection is named in a metric: counts per step, and the first expiry that is still to come (design.md 6.20).
//! A grant that Entra refuses is not counted, however long it would have lasted: its connection waits for a person,
//! and says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::warning::{DAY, WARN_BEFORE_EXPIRY};
use crate::clock::{Clock, between, later};
use crate::ids::AccountId;
use crate::vault::{Vault, VaultError};

/// An actor for the app to run.
pub struct ExpiryWatch {
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// The last step that was told of what is about to expire.
    told: HashMap<String, Step>,
}

#[derive(Clone, Debug, Default)]
struct Metrics {
    expiring: Family<Labels, Gauge>,
    first: Family<What, Gauge>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Labels {
    what: Kind,
    within: Step,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct What {
    what: Kind,
}

#[expect(non_camel_case_types, reason = "as they are shown in metrics")]
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
enum Kind {
    client_credential,
    grant,
}

/// A step towards the end, the last ones last.
#[expect(non_camel_case_types, reason = "as they are shown in metrics")]
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Step {
    days_60,
    days_30,
    days_14,
    days_7,
    days_1,
    expired,
}

/// One look at everything.
struct Look {
    now: Timestamp,
    found: Vec<Expiring>,
}

struct Expiring {
    what: Kind,
    name: String,
    at: Timestamp,
    step: Step,
}

impl ExpiryWatch {
    pub fn new(vault: Arc<Vault>, clock: Arc<dyn Clock>, registry: &mut Registry) -> Self {
        let metrics = Metrics::default();
        let help = "What expires, by the nearest step before it does; expired: it has, and nobody has acted";
        registry.register("azdo_broker_expiring", help, metrics.expiring.clone());
        let help = "When the next one expires, in seconds since 1970; 0: none within 60 days";
        registry.register("azdo_broker_first_expiry_seconds", help, metrics.first.clone());
        Self { vault, clock, metrics, told: HashMap::new() }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let clock = self.clock.clone();
        loop {
            let began = clock.now().monotonic;
            match self.look().await {
                Ok(look) => self.tell(look),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "it cannot be told what expires"
                    );
                }
            }
            // However long the look took.
            let took = clock.now().monotonic.saturating_sub(began);
            tokio::select! {
                () = stop.cancelled() => return,
                () = clock.sleep(EVERY.saturating_sub(took)) => {}
            }
        }
    }

    async fn look(&self) -> Result<Look, VaultError> {
        let now = self.clock.now().wall;
        let mut look = Look { now, found: Vec::new() };
        let mut after: Option<AccountId> = None;
        loop {
            let page = self.vault.integrations(after.as_ref(), PAGE, |_| true).await?;
            after = page.last().map(|(account, _)| account.clone());
            let is_last = page.len() < PAGE;
            for (account, integration) in page {
                // One that does not open fails elsewhere, by its name.
                let credentials =
                    integration.and_then(Result::ok).map(|one| one.credentials).unwrap_or_default();
                for credential in credentials {
                    let name = format!("{account}, {} {}", credential.kind(), credential.id);
                    look.note(Kind::client_credential, name, credential.expires_at);
                }
            }
            if is_last {
                break;
            }
        }
        // Asked for apart, so that many that died leave those to be seen which can be saved.
        for dies in [now..later(now, WARN_BEFORE_EXPIRY), Timestamp::MIN..now] {
            for (key, at) in self.vault.expiring_grants(dies, GRANTS_MAX).await? {
                look.note(Kind::grant, key.to_string(), Some(at));
            }
        }
        Ok(look)
    }

    fn tell(&mut self, Look { now, found }: Look) {
        self.metrics.show(&found);
        for one in untold(&self.told, &found) {
            one.log(now);
        }
        self.told = found.into_iter().map(|one| (one.name, one.step)).collect();
    }
}

impl Metrics {
    fn show(&self, found: &[Expiring]) {
        for what in [Kind::client_credential, Kind::grant] {
            let of_kind = || found.iter().filter(|one| one.what == what);
            for within in STEPS.map(|(step, _)| step).into_iter().chain([Step::expired]) {
                let count = of_kind().filter(|one| one.step == within).count();
                let gauge = self.expiring.get_or_create(&Labels { what, within });
                gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            let to_come = of_kind().filter(|one| one.step != Step::expired);
            let first = to_come.map(|one| one.at.as_second()).min().unwrap_or(0);
            self.first.get_or_create(&What { what }).set(first);
        }
    }
}

/// Each step of each is told once.
fn untold<'a>(told: &HashMap<String, Step>, found: &'a [Expiring]) -> impl Iterator<Item = &'a Expiring> {
    found.iter().filter(|one| told.get(&one.name).is_none_or(|told| *told < one.step))
}

impl Expiring {
    fn log(&self, now: Timestamp) {
        let Self { what, name, at, step } = self;
        if *step == Step::expired {
            tracing::warn!(?what, name, expired_at = %at, "expired");
        } else {
            let days = between(now, *at).as_secs() / DAY.as_secs();
            tracing::warn!(?what, name, expires_at = %at, days, "expires");
        }
    }
}

impl Look {
    fn note(&mut self, what: Kind, name: String, at: Option<Timestamp>) {
        let Some((at, step)) = at.and_then(|at| Some((at, step(between(self.now, at))?))) else { return };
        self.found.push(Expiring { what, name, at, step });
    }
}

fn step(left: Duration) -> Option<Step> {
    if left.is_zero() {
        return Some(Step::expired);
    }
    STEPS.into_iter().rev().find(|(_, days)| left < DAY * *days).map(|(step, _)| step)
}

const STEPS: [(Step, u32); 5] =
    [(Step::days_60, 60), (Step::days_30, 30), (Step::days_14, 14), (Step::days_7, 7), (Step::days_1, 1)];
const EVERY: Duration = Duration::from_hours(1);
const PAGE: usize = 200;
/// More than this many grants about to die are one problem, not many.
const GRANTS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::earlier;

    fn look(now: Timestamp, expiries: &[(&str, Timestamp)]) -> Vec<Expiring> {
        let mut look = Look { now, found: Vec::new() };
        for (name, at) in expiries {
            look.note(Kind::grant, (*name).to_owned(), Some(*at));
        }
        look.found
    }

    #[test]
    fn the_first_expiry_is_the_next_one_to_come_and_what_expired_has_a_bucket_of_its_own() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let next = later(now, DAY * 5);
        let metrics = Metrics::default();
        let counted = |within| metrics.expiring.get_or_create(&Labels { what: Kind::grant, within }).get();
        let first = || metrics.first.get_or_create(&What { what: Kind::grant }).get();

        metrics
            .show(&look(now, &[("dead", earlier(now, DAY)), ("next", next), ("late", later(now, DAY * 50))]));
        assert_eq!(first(), next.as_second());
        assert_eq!((counted(Step::expired), counted(Step::days_1), counted(Step::days_7)), (1, 0, 1));

        metrics.show(&look(now, &[("dead", earlier(now, DAY))]));
        assert_eq!((first(), counted(Step::expired), counted(Step::days_7)), (0, 1, 0));
    }

    #[test]
    fn each_step_of_each_is_told_once() {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let expiries = [("a", later(start, DAY * 8)), ("b", later(start, DAY * 61))];
        let mut told = HashMap::new();
        let mut lines = Vec::new();
        for hour in 0..24 * 70 {
            let found = look(later(start, Duration::from_hours(hour)), &expiries);
            lines.extend(untold(&told, &found).map(|one| (one.name.clone(), one.step)));
            told = found.into_iter().map(|one| (one.name, one.step)).collect();
        }
        let steps = |name| lines.iter().filter(|line| line.0 == name).map(|line| line.1).collect::<Vec<_>>();
        assert_eq!(steps("a"), [Step::days_14, Step::days_7, Step::days_1, Step::expired]);
        assert_eq!(
            steps("b"),
            STEPS.map(|(step, _)| step).into_iter().chain([Step::expired]).collect::<Vec<_>>()
        );
    }

    #[test]
    fn each_step_towards_the_end_is_told_apart() {
        let at = |days: f64| step(DAY.mul_f64(days));
        for (days, expected) in [
            (60.0, None),
            (59.9, Some(Step::days_60)),
            (30.0, Some(Step::days_60)),
            (29.9, Some(Step::days_30)),
            (13.0, Some(Step::days_14)),
            (6.0, Some(Step::days_7)),
            (0.5, Some(Step::days_1)),
            (0.0, Some(Step::expired)),
        ] {
            assert_eq!(at(days), expected, "{days} days");
        }
    }
}
