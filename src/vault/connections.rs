//! Connections: read, commit, connect, import, disconnect.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;

use super::connection::{Connection, Ended, Imported, Live, Opened, Standing};
use super::marks::Began;
use super::record::{self, ConnectionForm, ConnectionRecord};
use super::{Hold, Link, Vault, VaultError};
use crate::clock::later;
use crate::connection::{Change, ConnectionKey, Identity, Seen};
use crate::ids::{AccountId, Generation};
use crate::reason::Reason;
use crate::seal::Place;
use crate::secret::make_luck;
use crate::store::{Cas, Compared, ConnectionRow, ConnectionWrite};

/// What a refresh brought, sealed once, so that the same can be written again and again.
pub struct SealedRefresh(ConnectionWrite);

impl Vault {
    /// The connection, tombstones included; `None` if it never existed.
    pub async fn connection(&self, key: &ConnectionKey) -> Result<Option<Opened>, VaultError> {
        let began = self.marks.began();
        let loaded = self.store.connection(key).await?;
        match loaded.row {
            Some(row) => self.open(row, loaded.store_now, began).map(Some),
            None => self.marks.check_absent(key, loaded.store_now, began).map(|()| None),
        }
    }

    /// A page of an account's connections, tombstones included. A damaged one is an `Err` of its own.
    pub async fn connections(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(ConnectionKey, Result<Opened, VaultError>)>, VaultError> {
        let began = self.marks.began();
        let loaded = self.store.connections(account, after, limit).await?;
        let open = |row: ConnectionRow| (row.key.clone(), self.open(row, loaded.store_now, began));
        Ok(loaded.row.into_iter().map(open).collect())
    }

    /// Keys of the account's live connections, at most `max`; imported and damaged ones live too.
    pub async fn live_connections(
        &self,
        account: &AccountId,
        max: usize,
    ) -> Result<Vec<ConnectionKey>, VaultError> {
        let (mut live, mut after) = (Vec::new(), None::<String>);
        while live.len() < max {
            let rows = self.store.connections(account, after.as_deref(), ROWS_AT_ONCE).await?.row;
            let is_last = rows.len() < ROWS_AT_ONCE;
            after = rows.last().map(|row| row.key.role.to_string());
            live.extend(rows.into_iter().filter(|row| row.live).map(|row| row.key));
            if is_last {
                break;
            }
        }
        live.truncate(max);
        Ok(live)
    }

    /// Seals what a refresh brought, to be written in the place of what was leased.
    pub fn seal_refresh(
        &self,
        hold: &Hold,
        refreshed: &Connection,
        refresh_at: Option<Timestamp>,
    ) -> SealedRefresh {
        let next = (refresh_at, hold.change_by(refreshed));
        let from = (Some(hold.generation), hold.store_now);
        if !refreshed.is_open() {
            return SealedRefresh(self.write(&hold.key, from, refreshed.into(), next));
        }
        let at = (hold.generation, hold.next_generation());
        SealedRefresh(self.write_on(&hold.key, at, (hold.since, refreshed.into()), next))
    }

    /// Writes it, if the connection is still the one that was leased. To be repeated after an error: if it was
    /// written already, that is found, and is a success.
    pub async fn commit_refresh(&self, sealed: &SealedRefresh) -> Result<Generation, VaultError> {
        self.commit(sealed.0.clone()).await
    }

    /// Live connections whose grant dies of idleness within that time, the first to die first; but not those whose
    /// grant is dead already, by what Entra said. For counting, not for deciding: nothing is opened.
    pub async fn expiring_grants(
        &self,
        dies: Range<Timestamp>,
        limit: usize,
    ) -> Result<Vec<(ConnectionKey, Timestamp)>, VaultError> {
        Ok(self.store.expiring_grants(dies, limit).await?)
    }

    /// The generations that the store has now, for replicas that compare what they hold.
    pub async fn generations(&self, keys: Vec<ConnectionKey>) -> Result<Vec<Compared>, VaultError> {
        Ok(self.store.generations(keys).await?)
    }

    /// Brings refreshes forward: connections that are used get their next one at half life.
    pub async fn pull_refresh(
        &self,
        pulls: Vec<(ConnectionKey, Generation, Timestamp)>,
    ) -> Result<(), VaultError> {
        Ok(self.store.pull_refresh(pulls).await?)
    }

    /// Lifts the pauses of an account that were made for this reason.
    pub async fn lift_pauses(&self, account: &AccountId, reason: Reason) -> Result<(), VaultError> {
        self.store.clear_pause(account, reason).await?;
        self.wake_watchers();
        Ok(())
    }

    /// Who stands in the place of `key`, and at which generation: what a new link or a disconnect has to
    /// know. A damaged record stands there too, as nobody: it can be replaced and ended.
    pub async fn standing(&self, key: &ConnectionKey) -> Result<Standing, VaultError> {
        let began = self.marks.began();
        let loaded = self.store.connection(key).await?;
        let store_now = loaded.store_now;
        let Some(row) = loaded.row else {
            return Ok(Standing {
                generation: None,
                since: None,
                is_live: false,
                identity: None,
                origin: None,
                store_now,
            });
        };
        let (generation, is_live) = (Some(row.generation), row.live);
        let opened = self.open_sealed(row, store_now);
        let checked = opened.as_ref().map_or(Ok(()), |opened| self.marks.check(opened, began));
        if let Some(error) = checked.as_ref().err().or(opened.as_ref().err()) {
            tracing::error!(
                connection.key = %key, error = error as &dyn std::error::Error,
                "what stands there is refused; it can be replaced or ended"
            );
        }
        let (since, identity, origin) = match opened {
            // What a person ended does not come back by the import that it was, not even over what went back.
            Ok(opened) if checked.is_err() => (None, None, opened.connection.into_origin()),
            Ok(Opened { since, connection, .. }) => {
                let identity = connection.live().map(|live| live.identity.clone());
                (Some(since), identity, connection.into_origin())
            }
            Err(_) => (None, None, None),
        };
        Ok(Standing { generation, since, is_live, identity, origin, store_now })
    }

    /// Erases tombstones that are kept no longer, with all they say of anybody; a bounded number of them, and
    /// tells how many.
    pub async fn erase_ended(&self) -> Result<usize, VaultError> {
        Ok(self.store.erase_ended(self.marks.ended_kept, ERASED_AT_ONCE).await?)
    }

    /// Replaces the connection by a tombstone and ends the role's open links, in one transaction. Returns
    /// the tombstone's generation and who it was, or `None` if nothing was connected.
    pub async fn disconnect(
        &self,
        key: &ConnectionKey,
    ) -> Result<Option<(Generation, Option<Identity>)>, VaultError> {
        for _ in 0..RACES_MAX {
            let standing = self.standing(key).await?;
            // What went back to before its link is ended, too: it was seen, and may still be released.
            if !standing.is_live && !self.marks.is_behind(key, &standing) {
                self.end_links(&key.account, Some(&key.role), DISCONNECTED).await?;
                return Ok(None);
            }
            let identity = standing.identity.clone();
            let tombstone = Connection::Ended(Ended {
                at: standing.store_now,
                identity: standing.identity,
                because: None,
                origin: standing.origin.clone(),
            });
            let from = (standing.generation, standing.store_now);
            let write = self.write(key, from, (&tombstone).into(), (None, Some(Change::Disconnected)));
            let generation = write.generation;
            let ended = self.ended_links(&key.account, Some(&key.role), DISCONNECTED).await?;
            if let Cas::Won = self.store.disconnect(write, ended).await? {
                self.marks.note(key, Seen::end(generation));
                self.wake_watchers();
                self.forget_old_pages().await;
                return Ok(Some((generation, identity)));
            }
        }
        Err(VaultError::Changed(key.to_string()))
    }

    /// What was wiped still lies in the write-ahead log, sealed; a failure leaves it for the next time.
    pub async fn forget_old_pages(&self) {
        if let Err(error) = self.store.compact().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "old pages of the store were not removed"
            );
        }
    }

    /// Makes the connection of a verified link: the grant moves from the link to the connection and the
    /// link's secrets are wiped, all or nothing. Other links of the role stay open: whoever confirms one
    /// of them is shown first whom it would replace now.
    pub async fn connect(
        &self,
        (link, version): (&Link, i64),
        standing: &Standing,
        connection: &Connection,
    ) -> Result<Generation, VaultError> {
        let now = standing.store_now;
        let from = (standing.generation, now);
        let due = Some(make_keep_alive_at(now));
        let write = self.write(&link.key, from, connection.into(), (due, Some(Change::Connected)));
        let generation = write.generation;
        let row = self.link_row(link, version + 1);
        match self.store.connect(version, row, write).await? {
            Cas::Won => {
                self.marks.note(&link.key, Seen::link(generation));
                self.wake_watchers();
                Ok(generation)
            }
            Cas::Lost => Err(VaultError::Changed(link.key.to_string())),
        }
    }

    /// Makes a connection that nobody linked, over whom stands there. It is refreshed on demand only. Tells the
    /// generation, and since when the same app stands there.
    pub async fn connect_app(
        &self,
        key: &ConnectionKey,
        standing: &Standing,
        app: &Live,
    ) -> Result<(Generation, Generation), VaultError> {
        let next = (None, Some(Change::Connected));
        let form = || ConnectionForm::from(app);
        let is_same =
            standing.is_live && standing.identity.as_ref().is_some_and(|it| it.is_same_as(&app.identity));
        let write = match (standing.generation, standing.since) {
            // Proven again: nobody came, and nobody went.
            (Some(found), Some(since)) if is_same => {
                self.write_on(key, (found, found.next(standing.store_now)), (since, form()), next)
            }
            (found, _) => self.write(key, (found, standing.store_now), form(), next),
        };
        let since = standing.since.filter(|_| is_same);
        let generation = self.commit(write).await?;
        let since = since.unwrap_or(generation);
        self.marks.note(key, Seen::link(since));
        Ok((generation, since))
    }

    /// Puts an imported connection in the place of whoever stands there, to be proven when its turn comes.
    pub async fn import(
        &self,
        key: &ConnectionKey,
        standing: &Standing,
        imported: &Imported,
    ) -> Result<Generation, VaultError> {
        let now = standing.store_now;
        let from = (standing.generation, now);
        let write = self.write(key, from, imported.into(), (Some(now), Some(Change::Connected)));
        let generation = self.commit(write).await?;
        self.marks.note(key, Seen::link(generation));
        Ok(generation)
    }

    pub(super) async fn commit(&self, write: ConnectionWrite) -> Result<Generation, VaultError> {
        let (key, generation) = (write.key.clone(), write.generation);
        match self.store.commit(write).await? {
            Cas::Won => {
                self.wake_watchers();
                Ok(generation)
            }
            Cas::Lost => Err(VaultError::Changed(key.to_string())),
        }
    }

    /// The row that somebody's act puts in the place of `expected`, one generation on.
    pub(super) fn write(
        &self,
        key: &ConnectionKey,
        (expected, now): (Option<Generation>, Timestamp),
        form: ConnectionForm<'_>,
        next: (Option<Timestamp>, Option<Change>),
    ) -> ConnectionWrite {
        // Above what was seen, too: where the store went back, so may have its clock.
        let generation = expected.unwrap_or_default().max(self.marks.generation(key)).next(now);
        self.write_at(
            key,
            (expected, generation),
            ConnectionRecord { since: Some(generation), behind: None, form },
            next,
        )
    }

    /// The row that takes the place of another one of the same link.
    pub(super) fn write_on(
        &self,
        key: &ConnectionKey,
        (from, generation): (Generation, Generation),
        (since, form): (Generation, ConnectionForm<'_>),
        next: (Option<Timestamp>, Option<Change>),
    ) -> ConnectionWrite {
        self.write_at(
            key,
            (Some(from), generation),
            ConnectionRecord { since: Some(since), behind: None, form },
            next,
        )
    }

    pub(super) fn write_at(
        &self,
        key: &ConnectionKey,
        (expected, generation): (Option<Generation>, Generation),
        record: ConnectionRecord<'_>,
        (refresh_at, change): (Option<Timestamp>, Option<Change>),
    ) -> ConnectionWrite {
        let plain = record::write(&record);
        let form = record.form;
        let place = Place { table: TABLE, key: &key.to_string(), generation: generation.0 };
        ConnectionWrite {
            key: key.clone(),
            expected,
            generation,
            sealed: self.sealer.seal(&place, &plain),
            live: form.is_open(),
            refresh_at,
            grant_until: form.grant_expires_by(),
            paused: None,
            keeps_loss: false,
            change,
        }
    }

    /// Opens a row that a test took from the store itself.
    #[cfg(test)]
    pub(crate) fn open_for_tests(&self, row: ConnectionRow) -> Result<Opened, VaultError> {
        self.open(row, Timestamp::UNIX_EPOCH, self.marks.began())
    }

    /// Opens a row that was read since `began`.
    pub(super) fn open(
        &self,
        row: ConnectionRow,
        store_now: Timestamp,
        began: Began,
    ) -> Result<Opened, VaultError> {
        let opened = self.open_sealed(row, store_now)?;
        self.marks.check(&opened, began)?;
        Ok(opened)
    }

    /// Opens it even if it is older than what was seen.
    pub(super) fn open_sealed(&self, row: ConnectionRow, store_now: Timestamp) -> Result<Opened, VaultError> {
        let key = row.key.to_string();
        let place = Place { table: TABLE, key: &key, generation: row.generation.0 };
        let plain = self
            .sealer
            .open(&place, &row.sealed)
            .map_err(|source| VaultError::Sealed { key: key.clone(), source })?;
        let ConnectionRecord { since, behind, form } =
            record::read(&plain).ok_or(VaultError::Damaged(key.clone()))?;
        let since = since.unwrap_or(row.generation);
        let connection = Connection::from(form);
        if connection.is_open() != row.live {
            return Err(VaultError::Damaged(key));
        }
        // A loss that is foreseen is none while somebody is on it.
        let is_refreshing = row.lease_until.is_some_and(|until| store_now < until);
        let failure = row.failure.filter(|failure| !(failure.lost && is_refreshing));
        Ok(Opened { key: row.key, generation: row.generation, since, behind, connection, failure, store_now })
    }
}

/// The weekly date that keeps Entra's 90-day window open (design.md 6.5), spread over its last day so
/// that connections linked together do not come due together.
pub fn make_keep_alive_at(now: Timestamp) -> Timestamp {
    later(now, KEEP_ALIVE - KEEP_ALIVE_SPREAD.mul_f64(make_luck()))
}

const TABLE: &str = "connection";
const DISCONNECTED: &str = "The connection was disconnected. Begin the link again.";
/// A refresh lands between read and write at most this often in a row.
const RACES_MAX: usize = 5;
/// A page of rows in memory, some kilobytes each.
const ROWS_AT_ONCE: usize = 200;
/// One transaction, of some milliseconds.
const ERASED_AT_ONCE: usize = 1_000;
const KEEP_ALIVE: Duration = Duration::from_hours(7 * 24);
const KEEP_ALIVE_SPREAD: Duration = Duration::from_hours(24);
