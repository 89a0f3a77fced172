//! Connections: claim, commit, fail, disconnect.

use std::time::Duration;

use jiff::Timestamp;

use super::record::{self, ConnectionForm};
use super::{Link, Vault, VaultError};
use crate::clock::later;
use crate::connection::{ConnectionKey, Failure, Identity};
use crate::ids::{AccountId, Generation, Label, ObjectId};
use crate::reason::Reason;
use crate::seal::Place;
use crate::secret::{AccessToken, RawIdToken, RefreshToken, make_luck};
use crate::store::{Cas, Claim, ConnectionRow, ConnectionWrite, Verdict};

/// What a connection's sealed record says.
#[derive(Debug)]
pub enum Connection {
    Live(Live),
    /// Taken over from another system; nothing of it is released before it is proven.
    Imported(Imported),
    /// A tombstone: it keeps the generation, so that nothing older can come back.
    Ended(Ended),
}

#[derive(Debug)]
pub struct Live {
    pub identity: Identity,
    pub grant: RefreshToken,
    /// The last token, so that a restart is no refresh storm (design.md 6.4).
    pub token: Option<StoredToken>,
    pub linked_at: Timestamp,
    pub linked_by: Option<Label>,
    pub refreshed_at: Option<Timestamp>,
    /// The [`Imported::origin`] it came from, if it was imported.
    pub origin: Option<String>,
}

/// A grant from another system, of which nobody knows yet whose it is.
#[derive(Debug)]
pub struct Imported {
    pub grant: RefreshToken,
    /// The hash of what was handed over: the same import again is known by it.
    pub origin: String,
    pub expected_object_id: Option<ObjectId>,
    pub imported_at: Timestamp,
    pub imported_by: Option<Label>,
    /// When the other system used it last.
    pub last_used_at: Option<Timestamp>,
    /// What the first refresh brought, until somebody could say whose it is.
    pub held: Option<Held>,
}

/// What a refresh of an imported grant brought: sealed before it is looked at (P4).
#[derive(Debug)]
pub struct Held {
    pub token: StoredToken,
    pub unverified_id_token: Option<RawIdToken>,
}

#[derive(Debug)]
pub struct Ended {
    pub at: Timestamp,
    /// Who it was, for people who look.
    pub identity: Option<Identity>,
    /// Why, if no person ended it: an import that proved to be somebody else's.
    pub because: Option<Reason>,
    /// The import it came from: the same one does not bring it back.
    pub origin: Option<String>,
}

#[derive(Clone, Debug)]
pub struct StoredToken {
    pub access: AccessToken,
    pub expires_at: Timestamp,
    /// How long it was valid when it was issued.
    pub lifetime: Duration,
    pub scopes: Vec<String>,
}

/// A connection read and opened.
#[derive(Debug)]
pub struct Opened {
    pub key: ConnectionKey,
    pub generation: Generation,
    pub connection: Connection,
    pub failure: Option<Failure>,
    pub store_now: Timestamp,
}

/// Who stands in a place.
#[derive(Clone, Debug)]
pub struct Standing {
    /// `None` if no row ever stood there.
    pub generation: Option<Generation>,
    pub is_live: bool,
    /// The live identity, where the record opens.
    pub identity: Option<Identity>,
    /// The import it came from, proven or not.
    pub origin: Option<String>,
    pub store_now: Timestamp,
}

/// The right to refresh one connection for a while, with what is needed to do it.
#[derive(Debug)]
pub struct Lease {
    pub hold: Hold,
    pub live: Live,
}

/// The same for an imported connection, which is to be proven.
#[derive(Debug)]
pub struct ImportLease {
    pub hold: Hold,
    pub imported: Imported,
}

/// A lease of what was due.
#[derive(Debug)]
pub enum Leased {
    Live(Box<Lease>),
    Imported(Box<ImportLease>),
}

/// What a lease is known by when its outcome is written.
#[derive(Debug)]
pub struct Hold {
    pub key: ConnectionKey,
    pub generation: Generation,
    pub failure: Option<Failure>,
    pub store_now: Timestamp,
    fence: i64,
}

/// What came of asking for a lease.
#[derive(Debug)]
pub enum Claimed {
    Won(Leased),
    /// Never linked, or disconnected since.
    Absent,
    /// Another replica refreshes it.
    Leased,
    /// Not before `until`, for the reason the failure tells.
    Paused {
        until: Timestamp,
        failure: Option<Failure>,
    },
}

impl Connection {
    /// Whether it is anything but a tombstone.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Live(_) | Self::Imported(_) => true,
            Self::Ended(_) => false,
        }
    }
}

impl Leased {
    pub fn hold(&self) -> &Hold {
        match self {
            Self::Live(lease) => &lease.hold,
            Self::Imported(lease) => &lease.hold,
        }
    }
}

impl Hold {
    /// The same lease of the row as it is after a commit of ours, which took its failure away.
    #[must_use]
    pub fn at(self, generation: Generation) -> Self {
        Self { generation, failure: None, ..self }
    }
}

impl Vault {
    /// The connection, tombstones included; `None` if it never existed.
    pub async fn connection(&self, key: &ConnectionKey) -> Result<Option<Opened>, VaultError> {
        let loaded = self.store.connection(key).await?;
        loaded.row.map(|row| self.open(row, loaded.store_now)).transpose()
    }

    /// A page of an account's connections, tombstones included. A damaged one is an `Err` of its own.
    pub async fn connections(
        &self,
        account: &AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(ConnectionKey, Result<Opened, VaultError>)>, VaultError> {
        let rows = self.store.connections(account, after, limit).await?;
        let open = |row: ConnectionRow| (row.key.clone(), self.open(row, Timestamp::UNIX_EPOCH));
        Ok(rows.into_iter().map(open).collect())
    }

    /// Asks for the lease of one connection.
    pub async fn claim(&self, key: &ConnectionKey) -> Result<Claimed, VaultError> {
        Ok(match self.store.claim(key, LEASE).await? {
            Claim::Won(claimed) => {
                let lease = self.lease(claimed.row, claimed.store_now).await?;
                lease.map_or(Claimed::Absent, Claimed::Won)
            }
            Claim::Absent(_) => Claimed::Absent,
            Claim::Leased { .. } => Claimed::Leased,
            Claim::Paused { until, failure } => Claimed::Paused { until, failure },
        })
    }

    /// Takes the leases of connections that are due. A damaged one is put aside, so that it does not
    /// come due again and again.
    pub async fn claim_due(&self, limit: usize) -> Result<Vec<Leased>, VaultError> {
        let mut leases = Vec::new();
        for claimed in self.store.claim_due(limit, LEASE).await? {
            let key = claimed.row.key.clone();
            match self.lease(claimed.row, claimed.store_now).await {
                Ok(lease) => leases.extend(lease),
                Err(error) => {
                    tracing::error!(connection.key = %key, error = &error as &dyn std::error::Error, "put aside");
                }
            }
        }
        Ok(leases)
    }

    /// Writes what a refresh brought, if the connection is still the one that was leased.
    pub async fn commit_refresh(
        &self,
        hold: &Hold,
        refreshed: &Connection,
        refresh_at: Timestamp,
    ) -> Result<Generation, VaultError> {
        let from = (Some(hold.generation), hold.store_now);
        let write = self.write(&hold.key, from, refreshed, Some(refresh_at));
        let generation = write.generation;
        match self.store.commit(write).await? {
            Cas::Won => Ok(generation),
            Cas::Lost => Err(VaultError::Changed(hold.key.to_string())),
        }
    }

    /// Writes a verdict and gives the lease back. A stale holder changes nothing, which is right.
    pub async fn fail(&self, hold: &Hold, failure: &Failure, retry_at: Timestamp) -> Result<(), VaultError> {
        let verdict = Verdict {
            key: hold.key.clone(),
            generation: hold.generation,
            fence: hold.fence,
            failure: failure.clone(),
            retry_at,
        };
        if let Cas::Lost = self.store.record_failure(verdict).await? {
            tracing::info!(connection.key = %hold.key, "a verdict came too late and was dropped");
        }
        Ok(())
    }

    /// Gives a lease back unspent.
    pub async fn release(&self, hold: &Hold) -> Result<(), VaultError> {
        Ok(self.store.release_lease(&hold.key, hold.fence).await?)
    }

    /// Brings refreshes forward: connections that are used get their next one at half life.
    pub async fn pull_refresh(
        &self,
        pulls: Vec<(ConnectionKey, Generation, Timestamp)>,
    ) -> Result<(), VaultError> {
        Ok(self.store.pull_refresh(pulls).await?)
    }

    /// Lifts the pauses of an account: its client credential is new.
    pub async fn lift_pauses(&self, account: &AccountId) -> Result<(), VaultError> {
        Ok(self.store.clear_pause(account).await?)
    }

    /// Who stands in the place of `key`, and at which generation: what a new link or a disconnect has to
    /// know. A damaged record stands there too, as nobody: it can be replaced and ended.
    pub async fn standing(&self, key: &ConnectionKey) -> Result<Standing, VaultError> {
        let loaded = self.store.connection(key).await?;
        let store_now = loaded.store_now;
        let Some(row) = loaded.row else {
            return Ok(Standing {
                generation: None,
                is_live: false,
                identity: None,
                origin: None,
                store_now,
            });
        };
        let (generation, is_live) = (Some(row.generation), row.live);
        let (identity, origin) = match self.open(row, store_now).map(|opened| opened.connection) {
            Ok(Connection::Live(live)) => (Some(live.identity), live.origin),
            Ok(Connection::Imported(imported)) => (None, Some(imported.origin)),
            Ok(Connection::Ended(ended)) => (None, ended.origin),
            Err(error) => {
                tracing::error!(connection.key = %key, error = &error as &dyn std::error::Error, "damaged");
                (None, None)
            }
        };
        Ok(Standing { generation, is_live, identity, origin, store_now })
    }

    /// Replaces the connection by a tombstone and ends the role's open links, in one transaction. Returns
    /// the tombstone's generation and who it was, or `None` if nothing was connected.
    pub async fn disconnect(
        &self,
        key: &ConnectionKey,
    ) -> Result<Option<(Generation, Option<Identity>)>, VaultError> {
        for _ in 0..RACES_MAX {
            let standing = self.standing(key).await?;
            if !standing.is_live {
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
            let write = self.write(key, (standing.generation, standing.store_now), &tombstone, None);
            let generation = write.generation;
            let ended = self.ended_links(&key.account, Some(&key.role), DISCONNECTED).await?;
            if let Cas::Won = self.store.disconnect(write, ended).await? {
                self.forget_old_pages().await;
                return Ok(Some((generation, identity)));
            }
        }
        Err(VaultError::Changed(key.to_string()))
    }

    /// What was wiped still lies in the write-ahead log, sealed; a failure leaves it for the next time.
    async fn forget_old_pages(&self) {
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
        let write = self.write(&link.key, from, connection, Some(make_keep_alive_at(now)));
        let generation = write.generation;
        let row = self.link_row(link, version + 1);
        match self.store.connect(version, row, write).await? {
            Cas::Won => Ok(generation),
            Cas::Lost => Err(VaultError::Changed(link.key.to_string())),
        }
    }

    /// Puts an imported connection in the place of whoever stands there, to be proven when its turn comes.
    pub async fn import(
        &self,
        key: &ConnectionKey,
        standing: &Standing,
        imported: &Imported,
    ) -> Result<Generation, VaultError> {
        let now = standing.store_now;
        let form = ConnectionForm::from(imported);
        let write = self.write_form(key, (standing.generation, now), &form, true, Some(now));
        let generation = write.generation;
        match self.store.commit(write).await? {
            Cas::Won => Ok(generation),
            Cas::Lost => Err(VaultError::Changed(key.to_string())),
        }
    }

    /// The row that puts `connection` in the place of `expected`, one generation on.
    fn write(
        &self,
        key: &ConnectionKey,
        (expected, now): (Option<Generation>, Timestamp),
        connection: &Connection,
        refresh_at: Option<Timestamp>,
    ) -> ConnectionWrite {
        let form = ConnectionForm::from(connection);
        self.write_form(key, (expected, now), &form, connection.is_open(), refresh_at)
    }

    fn write_form(
        &self,
        key: &ConnectionKey,
        (expected, now): (Option<Generation>, Timestamp),
        form: &ConnectionForm<'_>,
        live: bool,
        refresh_at: Option<Timestamp>,
    ) -> ConnectionWrite {
        let generation = expected.unwrap_or_default().next(now);
        let plain = record::write(form);
        let place = Place { table: TABLE, key: &key.to_string(), generation: generation.0 };
        ConnectionWrite {
            key: key.clone(),
            expected,
            generation,
            sealed: self.sealer.seal(&place, &plain),
            live,
            refresh_at,
        }
    }

    async fn lease(&self, row: ConnectionRow, store_now: Timestamp) -> Result<Option<Leased>, VaultError> {
        let (key, generation, fence) = (row.key.clone(), row.generation, row.fence);
        match self.open(row, store_now) {
            Ok(Opened { connection: Connection::Live(live), failure, .. }) => {
                let hold = Hold { key, generation, failure, store_now, fence };
                Ok(Some(Leased::Live(Box::new(Lease { hold, live }))))
            }
            Ok(Opened { connection: Connection::Imported(imported), failure, .. }) => {
                let hold = Hold { key, generation, failure, store_now, fence };
                Ok(Some(Leased::Imported(Box::new(ImportLease { hold, imported }))))
            }
            Ok(Opened { connection: Connection::Ended(_), .. }) => Ok(None),
            Err(error) => {
                let failure = Failure {
                    reason: Reason::RecordDamaged,
                    code: None,
                    since: store_now,
                    count: 1,
                    needs_person: false,
                };
                let retry_at = later(store_now, DAMAGED_PAUSE);
                // Lost: somebody wrote the row meanwhile, and it comes due again by itself.
                let _ =
                    self.store.record_failure(Verdict { key, generation, fence, failure, retry_at }).await?;
                Err(error)
            }
        }
    }

    fn open(&self, row: ConnectionRow, store_now: Timestamp) -> Result<Opened, VaultError> {
        let key = row.key.to_string();
        let place = Place { table: TABLE, key: &key, generation: row.generation.0 };
        let plain = self
            .sealer
            .open(&place, &row.sealed)
            .map_err(|source| VaultError::Sealed { key: key.clone(), source })?;
        let form: ConnectionForm<'_> = record::read(&plain).ok_or(VaultError::Damaged(key.clone()))?;
        let connection = Connection::from(form);
        if connection.is_open() != row.live {
            return Err(VaultError::Damaged(key));
        }
        Ok(Opened { key: row.key, generation: row.generation, connection, failure: row.failure, store_now })
    }
}

/// The weekly date that keeps Entra's 90-day window open (design.md 6.5), spread over its last day so
/// that connections linked together do not come due together.
pub fn make_keep_alive_at(now: Timestamp) -> Timestamp {
    later(now, KEEP_ALIVE - KEEP_ALIVE_SPREAD.mul_f64(make_luck()))
}

const TABLE: &str = "connection";
const DISCONNECTED: &str = "The connection was disconnected. Begin the link again.";
/// Longer than Entra's total deadline of 10 s, so that a living holder never loses it (design.md 6.1).
const LEASE: Duration = Duration::from_secs(15);
/// A damaged record does not mend itself; looked at again in case an operator restored it.
const DAMAGED_PAUSE: Duration = Duration::from_hours(1);
/// A refresh lands between read and write at most this often in a row.
const RACES_MAX: usize = 5;
const KEEP_ALIVE: Duration = Duration::from_hours(7 * 24);
const KEEP_ALIVE_SPREAD: Duration = Duration::from_hours(24);
