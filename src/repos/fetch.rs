//! Asking Azure DevOps: one list at a time for each connection, permissions a batch at a time.
//!
//! A list is made in a task of ours: who asks meanwhile waits for the same one, if that is young enough for
//! the wish, and who goes away does not waste it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::snapshot::Snapshot;
use super::{Shared, TOKEN_TTL, gone};
use crate::clock::Moment;
use crate::connection::ConnectionKey;
use crate::devops::{BATCH_LEN_MAX, DevopsError, Purpose, Repository};
use crate::ids::Organization;
use crate::policy::Allowed;
use crate::reason::{Problem, Reason, Refused};
use crate::tokens::{Reported, Token};

/// The lists that are being made.
#[derive(Default)]
pub(super) struct Flights {
    by_key: Mutex<HashMap<ConnectionKey, Flight>>,
}

/// A list that is being made.
#[derive(Clone)]
struct Flight {
    /// By the monotonic clock.
    began: Duration,
    landing: Landing,
}

type Landing = watch::Receiver<Option<Result<Arc<Snapshot>, Problem>>>;

impl Shared {
    /// The list that is being made for this connection, or a new one: begun at most `max_age` before it
    /// was `asked` for.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        allowed: &Allowed,
        key: &ConnectionKey,
        asked: Moment,
        max_age: Duration,
    ) -> Result<Arc<Snapshot>, Problem> {
        let mut flight = self.board(allowed, key)?;
        if max_age < asked.monotonic.saturating_sub(flight.began) {
            // Two lists of one connection are not made at once. The next one began after we asked, whoever
            // boards it first.
            drop(flight.landing.wait_for(Option::is_some).await);
            flight = self.board(allowed, key)?;
        }
        let landed = flight.landing.wait_for(Option::is_some).await.map_err(|_| lost())?;
        landed.clone().unwrap_or_else(|| Err(lost()))
    }

    fn board(self: &Arc<Self>, allowed: &Allowed, key: &ConnectionKey) -> Result<Flight, Problem> {
        let mut by_key = self.flights.by_key.lock().expect("no panic while held");
        // One that was lost tells nobody anything.
        if let Some(flight) = by_key.get(key).filter(|flight| flight.landing.has_changed().is_ok()) {
            return Ok(flight.clone());
        }
        let Some(place) = self.parts.paces.list_place() else {
            let detail = "too many lists are being made at once";
            return Err(Problem::new(Reason::RateLimited, detail).retry_after(RETRY));
        };
        let (tell, landing) = watch::channel(None);
        let flight = Flight { began: self.parts.clock.now().monotonic, landing };
        by_key.insert(key.clone(), flight.clone());
        drop(self.parts.tasks.run(self.clone().fly(allowed.clone(), key.clone(), tell, place)));
        Ok(flight)
    }

    async fn fly(
        self: Arc<Self>,
        allowed: Allowed,
        key: ConnectionKey,
        tell: watch::Sender<Option<Result<Arc<Snapshot>, Problem>>>,
        _place: OwnedSemaphorePermit,
    ) {
        let made = tokio::select! {
            made = self.make(&allowed, &key) => made.map(Arc::new),
            () = self.stop.cancelled() => Err(lost()),
        };
        if let Ok(made) = &made {
            self.snapshots.put(&key, made.clone(), self.parts.clock.now());
        }
        // Who comes from here on finds the snapshot, or begins anew.
        self.flights.by_key.lock().expect("no panic while held").remove(&key);
        tell.send_replace(Some(made));
    }

    async fn make(&self, allowed: &Allowed, key: &ConnectionKey) -> Result<Snapshot, Problem> {
        let integration = self.parts.accounts.integration(&key.account).await?;
        let integration = integration.ok_or_else(super::gone_problem)?;
        let organization = &integration.organization;
        // Before it is asked: it is not younger than that.
        let as_of = self.parts.clock.now();
        let mut token = self.parts.tokens.token(allowed, key, TOKEN_TTL).await?;
        let mut listed = self.list(organization, &token).await;
        if let Err(DevopsError::Unauthenticated) = listed {
            token = self.successor(allowed, key, &token).await?;
            listed = self.list(organization, &token).await;
        }
        let repos = listed.map_err(|error| error.problem())?;
        // Of a large organization this takes its time too.
        let organization = organization.clone();
        let sorted = tokio::task::spawn_blocking(move || Snapshot::make(&token, organization, as_of, repos));
        sorted.await.map_err(|_| lost())
    }

    /// Asks which of the repositories that are shown may be read. Of one snapshot one caller asks at a
    /// time: many who read the same page ask once.
    pub(super) async fn learn_permissions(
        &self,
        allowed: &Allowed,
        key: &ConnectionKey,
        snapshot: &Snapshot,
        (shown, rest): (&[usize], &[usize]),
    ) -> Result<(), Refused> {
        if snapshot.questions(shown, rest).is_empty() {
            return Ok(());
        }
        let _turn = snapshot.turn.acquire().await.expect("nobody closes the semaphore");
        let questions = snapshot.questions(shown, rest);
        if questions.is_empty() {
            return Ok(());
        }
        let mut token = self.parts.tokens.token(allowed, key, TOKEN_TTL).await?;
        let mut answers = self.may_read(snapshot, &questions, &token).await;
        if let Err(DevopsError::Unauthenticated) = answers {
            token = self.successor(allowed, key, &token).await?;
            answers = self.may_read(snapshot, &questions, &token).await;
        }
        let answers = answers.map_err(|error| error.problem())?;
        if !snapshot.is_of(&token) {
            return Err(gone());
        }
        for (at, may_read) in questions.iter().zip(answers) {
            snapshot.learn(*at, may_read);
        }
        Ok(())
    }

    async fn list(&self, organization: &Organization, token: &Token) -> Result<Vec<Repository>, DevopsError> {
        let pace = self.parts.paces.of(&token.identity);
        pace.run(Purpose::List, self.parts.devops.repositories(organization, &token.access)).await
    }

    async fn may_read(
        &self,
        snapshot: &Snapshot,
        questions: &[usize],
        token: &Token,
    ) -> Result<Vec<bool>, DevopsError> {
        let pace = self.parts.paces.of(&token.identity);
        let batches = questions.chunks(BATCH_LEN_MAX).map(async |batch| {
            let ids: Vec<_> = batch.iter().map(|at| snapshot.repository_id(*at)).collect();
            pace.run(Purpose::List, self.parts.devops.may_read(&snapshot.organization, &token.access, &ids))
                .await
        });
        Ok(try_join_all(batches).await?.concat())
    }

    /// The token after one that Azure DevOps refused, if it was not replaced just before.
    async fn successor(
        &self,
        allowed: &Allowed,
        key: &ConnectionKey,
        refused: &Token,
    ) -> Result<Arc<Token>, Problem> {
        let tokens = &self.parts.tokens;
        match tokens.report(allowed, key, &refused.fingerprint) {
            Reported::Replacing => tokens.token_other_than(allowed, key, &refused.fingerprint).await,
            // Somebody else found out before us.
            Reported::Unknown => tokens.token(allowed, key, TOKEN_TTL).await,
            Reported::TooSoon => Err(DevopsError::Unauthenticated.problem()),
        }
    }
}

fn lost() -> Problem {
    Problem::new(Reason::ShuttingDown, "the list was given up").retry_after(Duration::from_secs(1))
}

const RETRY: Duration = Duration::from_secs(30);
