//! What was seen of links and disconnects, to notice when the store goes back behind it (design.md 6.13).
//!
//! # Invariants
//!
//! 1. A row of before a link or disconnect that was seen does not open: not what was disconnected comes back, and
//!    not an identity that was replaced (P9). When who stands there came is sealed in the row, and a refresh does
//!    not change it: neither is it younger for one that landed since, nor older for one that was lost.
//! 2. Who finds that out writes it into the row, so that replicas that saw nothing refuse it too.
//! 3. Where an end was seen, a row that is not there is none that came back: its tombstone was erased, or is of a
//!    time before it was ever linked. Nor is one that was linked so long ago that it may have ended, and its
//!    tombstone been erased, unseen.
//! 4. Anything written later lifts that: a new link, or an operator's word that the restore was meant
//!    ([`Vault::accept_restore`]). Both get a generation above all that was seen, so that other replicas need
//!    not be told.
//!
//! What was seen is what this process made or learned, and what its audit says at start. A store that goes
//! back while no replica runs, with an audit that went back too, is not noticed by anybody. A mark costs some
//! hundred bytes; beyond [`MARKS_MAX`] any one is dropped, which only the audit still knows.

use std::collections::HashMap;
use std::sync::RwLock;
use std::time::Duration;

use jiff::Timestamp;

use super::connection::{Connection, Ended, Opened, Standing};
use super::{Claimed, Vault, VaultError};
use crate::clock::{Clock, earlier, later};
use crate::connection::{Change, ConnectionKey, Seen};
use crate::ids::{AccountId, Generation, StoreId};
use crate::store::{Compared, Loaded};

/// The newest link or disconnect that was seen of each connection.
#[derive(Debug)]
pub(super) struct Marks {
    noted: RwLock<Noted>,
    /// How long tombstones stay in this store.
    pub(super) ended_kept: Duration,
}

#[derive(Debug, Default)]
struct Noted {
    marks: HashMap<ConnectionKey, Mark>,
    /// Grows with each mark.
    count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    seen: Seen,
    noted: Began,
}

/// Before a read began: what was noted only since then tells nothing about what it brings.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Began(u64);

/// A connection whose row is older than what was seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rollback {
    pub key: ConnectionKey,
    /// What the store holds; none where it holds nothing.
    pub found: Option<Generation>,
    pub seen: Seen,
}

impl Marks {
    pub(super) fn new(ended_kept: Duration) -> Self {
        Self { noted: RwLock::default(), ended_kept }
    }

    pub(super) fn began(&self) -> Began {
        Began(self.noted.read().expect("no panic while held").count)
    }

    /// Whether that is newer than what was known.
    pub(super) fn note(&self, key: &ConnectionKey, seen: Seen) -> bool {
        let mut noted = self.noted.write().expect("no panic while held");
        let before = noted.marks.get(key).copied();
        if before.is_some_and(|mark| seen <= mark.seen) {
            return false;
        }
        if MARKS_MAX <= noted.marks.len() && before.is_none() {
            let some = noted.marks.keys().next().cloned();
            some.and_then(|key| noted.marks.remove(&key));
        }
        noted.count += 1;
        let mark = Mark { seen, noted: Began(noted.count) };
        noted.marks.insert(key.clone(), mark);
        true
    }

    /// Whether a row that was read since `began` is older than what was seen: here, or by who wrote `behind` into it.
    pub(super) fn check(&self, row: &Opened, behind: Option<Seen>, began: Began) -> Result<(), VaultError> {
        // Anybody may edit a column: what no clock told yet, or not for long, is nothing that was seen.
        let believed = later(row.store_now, AHEAD_MAX).as_microsecond();
        let behind = behind.filter(|seen| seen.generation.0 <= believed);
        let seen = behind.max(self.seen_before(&row.key, began));
        rolled_back(&row.key, Some(row.generation), seen.filter(|seen| row.since < seen.generation))
    }

    /// Whether a row is missed that should have been there at `store_now`.
    pub(super) fn check_absent(
        &self,
        key: &ConnectionKey,
        store_now: Timestamp,
        began: Began,
    ) -> Result<(), VaultError> {
        let seen = self.seen_before(key, began);
        rolled_back(key, None, seen.filter(|seen| self.is_missed(*seen, store_now)))
    }

    /// Whether a row should be there: nothing that was linked so lately can have been disconnected and erased.
    fn is_missed(&self, seen: Seen, store_now: Timestamp) -> bool {
        !seen.is_end && earlier(store_now, self.ended_kept).as_microsecond() < seen.generation.0
    }

    /// Whether a link was seen that is newer than what stands there, or missing.
    pub(super) fn is_behind(&self, key: &ConnectionKey, standing: &Standing) -> bool {
        let missing = self.check_absent(key, standing.store_now, self.began()).is_err();
        match standing.generation {
            None => missing,
            Some(found) => {
                self.mark(key).is_some_and(|mark| !mark.seen.is_end && found < mark.seen.generation)
            }
        }
    }

    /// The newest generation that was seen of it.
    pub(super) fn generation(&self, key: &ConnectionKey) -> Generation {
        self.mark(key).map(|mark| mark.seen.generation).unwrap_or_default()
    }

    fn seen_before(&self, key: &ConnectionKey, began: Began) -> Option<Seen> {
        self.mark(key).filter(|mark| mark.noted <= began).map(|mark| mark.seen)
    }

    fn mark(&self, key: &ConnectionKey) -> Option<Mark> {
        self.noted.read().expect("no panic while held").marks.get(key).copied()
    }

    fn all(&self) -> Vec<(ConnectionKey, Seen)> {
        let noted = self.noted.read().expect("no panic while held");
        let mut all: Vec<_> = noted.marks.iter().map(|(key, mark)| (key.clone(), mark.seen)).collect();
        all.sort();
        all
    }
}

fn rolled_back(key: &ConnectionKey, found: Option<Generation>, seen: Option<Seen>) -> Result<(), VaultError> {
    seen.map_or(Ok(()), |seen| Err(VaultError::RolledBack(Rollback { key: key.clone(), found, seen })))
}

impl Vault {
    /// The store whose generations these are.
    pub fn store_id(&self) -> &StoreId {
        self.store.store_id()
    }

    /// Remembers that a link or a disconnect was seen. False: it was known.
    pub fn note_seen(&self, key: &ConnectionKey, seen: Seen) -> bool {
        self.marks.note(key, seen)
    }

    /// Compares what was seen with the store.
    pub async fn rollbacks(&self) -> Result<Vec<Rollback>, VaultError> {
        let mut behind = Vec::new();
        for marks in self.marks.all().chunks(COMPARED_AT_ONCE) {
            let keys = marks.iter().map(|(key, _)| key.clone()).collect();
            let Loaded { row: found, store_now } = self.store.generations(keys).await?;
            let found: HashMap<_, _> = found.into_iter().map(|one| (one.key.clone(), one)).collect();
            for (key, seen) in marks {
                match found.get(key) {
                    Some(Compared { generation, .. }) if *generation < seen.generation => {
                        behind.push(Rollback { key: key.clone(), found: Some(*generation), seen: *seen });
                    }
                    // A refresh may have brought it above what it is behind: what is sealed tells.
                    Some(Compared { is_suspected: true, .. }) => match self.connection(key).await {
                        Err(VaultError::RolledBack(rollback)) => behind.push(rollback),
                        Err(error @ VaultError::Store(_)) => return Err(error),
                        _ => {}
                    },
                    None if self.marks.is_missed(*seen, store_now) => {
                        behind.push(Rollback { key: key.clone(), found: None, seen: *seen });
                    }
                    Some(_) | None => {}
                }
            }
        }
        Ok(behind)
    }

    /// Compares what was seen with a store that was away, and writes what is older into its rows. Tells how
    /// many there are.
    pub async fn suspect_rollbacks(&self, clock: &dyn Clock) -> Result<usize, VaultError> {
        let rollbacks = self.rollbacks().await?;
        if let Some(first) = rollbacks.first() {
            tracing::error!(
                count = rollbacks.len(), first = %first.key,
                "the store is older than what was seen: these connections are refused until the restore is accepted by `azdo-broker connections accept-restore --yes`"
            );
        }
        for Rollback { key, .. } in rollbacks.iter().filter(|rollback| rollback.found.is_some()) {
            self.suspect(key, clock).await?;
        }
        Ok(rollbacks.len())
    }

    /// Writes into a row that it is older than what was seen, if it is.
    pub async fn suspect(&self, key: &ConnectionKey, clock: &dyn Clock) -> Result<(), VaultError> {
        for _ in 0..RACES_MAX {
            // A lease of what does not open leaves its reason in the row.
            match self.claim(key, clock).await {
                Ok(Claimed::Won(leased)) => return self.release(leased.hold()).await,
                Ok(Claimed::Paused { failure: Some(failure), .. }) if failure.behind.is_some() => {
                    return Ok(());
                }
                Ok(Claimed::Paused { .. } | Claimed::Leased) => self.seize(key).await?,
                Err(error @ VaultError::Store(_)) => return Err(error),
                Ok(Claimed::Absent) | Err(_) => return Ok(()),
            }
        }
        Err(VaultError::Changed(key.to_string()))
    }

    /// Ends pause and lease of a row that went back: written again as it is, one generation on, so that a refresh of
    /// it that is under way is lost to it.
    async fn seize(&self, key: &ConnectionKey) -> Result<(), VaultError> {
        let Loaded { row: Some(row), store_now } = self.store.connection(key).await? else { return Ok(()) };
        let (found, refresh_at) = (row.generation, row.refresh_at);
        // What does not open is not released either.
        let Ok(opened) = self.open_sealed(row, store_now) else { return Ok(()) };
        let form = (&opened.connection).into();
        // Not by the clock: what is below the mark is found by comparing generations, too.
        let next = Generation(found.0.saturating_add(1));
        let write = self.write_on(key, (found, next), (opened.since, form), (refresh_at, None));
        match self.commit(write).await {
            Ok(_) | Err(VaultError::Changed(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes the older state for good: it is written again, above all that was seen. What the store does not
    /// hold at all becomes a tombstone.
    pub async fn accept_restore(&self, Rollback { key, seen, .. }: &Rollback) -> Result<(), VaultError> {
        self.marks.note(key, *seen);
        for _ in 0..RACES_MAX {
            let Loaded { row, store_now } = self.store.connection(key).await?;
            let opened = row.map(|row| self.open_sealed(row, store_now)).transpose()?;
            if opened.as_ref().is_some_and(|opened| seen.generation <= opened.since) {
                break; // Linked or disconnected meanwhile: that is newer than what was restored.
            }
            let found = opened.as_ref().map(|opened| opened.generation);
            let nobody = || Ended { at: store_now, identity: None, because: None, origin: None };
            let connection = opened.map_or_else(|| Connection::Ended(nobody()), |opened| opened.connection);
            let change = if connection.is_open() { Change::Connected } else { Change::Disconnected };
            let write =
                self.write(key, (found, store_now), (&connection).into(), (Some(store_now), Some(change)));
            match self.commit(write).await {
                // Its lease was ended, or a refresh of it landed.
                Err(VaultError::Changed(_)) => {}
                committed => return committed.map(drop),
            }
        }
        Err(VaultError::Changed(key.to_string()))
    }

    /// All rows of an account that went back, also by what other replicas wrote into them.
    pub async fn suspected(&self, account: &AccountId) -> Result<Vec<Rollback>, VaultError> {
        let (mut suspected, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = self.connections(account, after.as_deref(), ROWS_AT_ONCE).await?;
            let Some((last, _)) = page.last() else { return Ok(suspected) };
            after = Some(last.role.to_string());
            suspected.extend(page.into_iter().filter_map(|(_, opened)| match opened {
                Err(VaultError::RolledBack(rollback)) => Some(rollback),
                _ => None,
            }));
        }
    }
}

/// How far the clock of the store that was may have been ahead of the one that is.
const AHEAD_MAX: Duration = Duration::from_hours(24);
/// Links and disconnects are people's acts, a few a second at the most.
const MARKS_MAX: usize = 200_000;
const COMPARED_AT_ONCE: usize = 2_000;
/// Somebody writes or claims the row at the same moment at most so often in a row.
const RACES_MAX: usize = 4;
const ROWS_AT_ONCE: usize = 200;
