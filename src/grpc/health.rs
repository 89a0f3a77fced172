//! Health by names that mean something: `""`, the service's name, `store`, `keys`, `audit`.
//!
//! A degraded part does not take the whole down: what is at hand is still released (P6).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::audit::Audit;
use crate::clock::Clock;
use crate::event::{By, Event, Outcome};
use crate::tokens::Metrics;
use crate::vault::Vault;

/// An actor for the app to run: looks now and then, and tells the health service.
pub struct HealthWatch {
    pub reporter: HealthReporter,
    pub vault: Arc<Vault>,
    pub refreshes: Metrics,
    pub audit: Audit,
    pub clock: Arc<dyn Clock>,
}

impl HealthWatch {
    pub async fn run(self, stop: CancellationToken) {
        loop {
            self.look().await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.clock.sleep(EVERY) => {}
            }
        }
        for name in ["", BROKER, "store", "keys", "audit"] {
            self.reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
    }

    async fn look(&self) {
        // A grant that the store does not take is kept in memory: that must be seen, whatever a probe says.
        let store = self.vault.probe().await.is_ok() && self.refreshes.uncommitted() == 0;
        if !self.audit.is_healthy() {
            // Only a record that lands makes it healthy again, and unready nobody asks for one.
            let probe = Event::new("health.probe", By::Broker, Outcome::Done);
            let _still_failing = self.audit.record(probe).await;
        }
        let audit = self.audit.is_healthy();
        // Without the audit nothing is released (P3); without the store what is held still is (P6).
        for (name, healthy) in
            [("store", store), ("audit", audit), ("keys", true), (BROKER, audit), ("", audit)]
        {
            let status = if healthy { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.reporter.set_service_status(name, status).await;
        }
    }
}

const BROKER: &str = "azdo.broker.v1.CredentialBroker";
const EVERY: Duration = Duration::from_secs(5);
