//! Several brokers over one PostgreSQL, one emulator, one clock.

use std::sync::Arc;
use std::time::Duration;

use azdo_broker::clock::{earlier, later};
use azdo_broker::testing::{ManualClock, TestPostgres};
use tokio_util::sync::DropGuard;

use super::{Client, Files, TestApp};

/// The first one is a [`TestApp`]; the others are reached by their sockets.
pub(crate) struct Replicas {
    pub(crate) first: TestApp,
    others: Vec<(Files, DropGuard)>,
    pub(crate) server: TestPostgres,
    /// Of those whose clock is not the first one's.
    clocks: Vec<Arc<ManualClock>>,
    passed: Duration,
}

impl Replicas {
    /// `count` brokers; `acme` is registered and its service user linked.
    pub(crate) async fn linked(count: usize) -> Self {
        let mut replicas = Self::linked_one().await;
        for _ in 1..count {
            replicas.others.push(replicas.first.replica().await);
        }
        replicas
    }

    /// Three of them: the wall clock of the second is so much ahead, that of the third so much behind.
    pub(crate) async fn whose_clocks_differ(by: Duration) -> Self {
        let mut replicas = Self::linked_one().await;
        let right = replicas.first.now();
        for wrong in [later(right, by), earlier(right, by)] {
            let clock = Arc::new(ManualClock::at(wrong));
            replicas.others.push(replicas.first.replica_at(&clock).await);
            replicas.clocks.push(clock);
        }
        replicas
    }

    async fn linked_one() -> Self {
        let server = TestPostgres::start();
        let url = server.database_url().await;
        let first = TestApp::empty_over(&format!("url = \"{url}\"")).await;
        first.register().await;
        first.link("svc@contoso.com").await;
        Self { first, others: Vec::new(), server, clocks: Vec::new(), passed: Duration::ZERO }
    }

    /// The operator's way to this replica; the first one is 0.
    pub(crate) async fn operator(&self, replica: usize) -> Client {
        Client::over_socket(&self.files(replica).path("operator.sock")).await
    }

    pub(crate) fn files(&self, replica: usize) -> &Files {
        if replica == 0 { &self.first.files } else { &self.others[replica - 1].0 }
    }

    /// Moves the clock of everybody, the database's too.
    pub(crate) async fn advance(&mut self, by: Duration) {
        self.passed += by;
        self.first.advance(by);
        self.clocks.iter().for_each(|clock| clock.advance(by));
        let sql = format!(
            "CREATE OR REPLACE FUNCTION azdo_broker.store_now() RETURNS bigint LANGUAGE sql VOLATILE AS
             $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + {} $$",
            self.passed.as_micros()
        );
        self.server.execute("broker0", &sql).await;
    }
}
