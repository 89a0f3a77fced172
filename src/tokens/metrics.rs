//! What refreshes come to, counted. No account or connection label: there may be a million (6.20).

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counters of the refresher. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    refreshes: Family<Labels, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Labels {
    outcome: Outcome,
}

/// How a refresh that asked Entra ended.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub(super) enum Outcome {
    Committed,
    /// Its compare-and-swap was lost: disconnected or linked anew meanwhile.
    Dropped,
    Failed,
    /// The store did not take it in time, or the answer did not arrive where each grant works once.
    Lost,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("azdo_broker_refreshes", "Refreshes by outcome", self.refreshes.clone());
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.refreshes.get_or_create(&Labels { outcome }).inc();
    }
}
