//! What refreshes come to, counted. No account or connection label: there may be a million (6.20).

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the refresher. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    refreshes: Family<Labels, Counter>,
    uncommitted: Gauge,
}

/// Counts one grant that is kept in memory, until dropped.
pub(super) struct Uncommitted(Gauge);

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Labels {
    outcome: Outcome,
}

/// How a refresh ended.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub(super) enum Outcome {
    Committed,
    /// Its compare-and-swap was lost: disconnected or linked anew meanwhile.
    Dropped,
    Failed,
    /// Entra was not asked: others came first, the tenant wants to be left alone, or nothing answers.
    PutOff,
    /// The answer did not arrive, where each grant works once.
    Lost,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("azdo_broker_refreshes", "Refreshes by outcome", self.refreshes.clone());
        let help = "New grants kept in memory because the store does not take them";
        registry.register("azdo_broker_uncommitted_grants", help, self.uncommitted.clone());
    }

    /// How many new grants the store has not taken yet: while there are any, it is not healthy.
    pub fn uncommitted(&self) -> i64 {
        self.uncommitted.get()
    }

    pub(super) fn keep_uncommitted(&self) -> Uncommitted {
        self.uncommitted.inc();
        Uncommitted(self.uncommitted.clone())
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.refreshes.get_or_create(&Labels { outcome }).inc();
    }
}

impl Drop for Uncommitted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
