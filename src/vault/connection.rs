//! What a connection's record says once it is opened, and who stands in a place.
//!
//! Data alone: how it is read, written and leased is told in `connections` and `leases`.

use std::time::Duration;

use jiff::Timestamp;

use super::record::ConnectionForm;
use crate::connection::{ConnectionKey, Failure, Identity, Seen};
use crate::ids::{Generation, Label, ObjectId};
use crate::reason::Reason;
use crate::secret::{AccessToken, RawIdToken, RefreshToken};

/// What a connection's sealed record says.
#[derive(Debug)]
pub enum Connection {
    Live(Live),
    /// Taken over from another system; nothing of it is released before it is proven.
    Imported(Imported),
    /// A tombstone: it keeps the generation, so that nothing older can come back.
    Ended(Ended),
}

impl Connection {
    /// When Entra lets the grant die of idleness, unless it is refreshed before (azure.md 2.2); none for who
    /// has no grant.
    pub fn grant_expires_by(&self) -> Option<Timestamp> {
        ConnectionForm::from(self).grant_expires_by()
    }
}

#[derive(Debug)]
pub struct Live {
    pub identity: Identity,
    /// What Entra gave for a person; a service principal has none.
    pub grant: Option<RefreshToken>,
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
    /// The generation with which who stands there came, or was disconnected: a refresh keeps it.
    pub since: Generation,
    /// The link or disconnect that it is of before, if somebody who saw that wrote it.
    pub(super) behind: Option<Seen>,
    pub connection: Connection,
    pub failure: Option<Failure>,
    pub store_now: Timestamp,
}

impl Opened {
    /// What was just made, with this generation or since an earlier one.
    pub fn made(
        key: ConnectionKey,
        (generation, since): (Generation, Generation),
        connection: Connection,
        store_now: Timestamp,
    ) -> Self {
        Self { key, generation, since, behind: None, connection, failure: None, store_now }
    }

    /// The link or disconnect that made what it says.
    pub fn seen(&self) -> Seen {
        Seen { generation: self.since, is_end: !self.connection.is_open() }
    }

    /// Whether it is of before that. One end is like the other.
    pub fn is_before(&self, seen: Seen) -> bool {
        self.since < seen.generation && (self.connection.is_open() || !seen.is_end)
    }
}

/// Who stands in a place.
#[derive(Clone, Debug)]
pub struct Standing {
    /// `None` if no row ever stood there.
    pub generation: Option<Generation>,
    /// As [`Opened::since`], where the record opens.
    pub since: Option<Generation>,
    pub is_live: bool,
    /// The live identity, where the record opens.
    pub identity: Option<Identity>,
    /// The import it came from, proven or not.
    pub origin: Option<String>,
    pub store_now: Timestamp,
}

impl Connection {
    /// The import it came from.
    pub(super) fn into_origin(self) -> Option<String> {
        match self {
            Self::Live(live) => live.origin,
            Self::Imported(imported) => Some(imported.origin),
            Self::Ended(ended) => ended.origin,
        }
    }

    pub fn live(&self) -> Option<&Live> {
        match self {
            Self::Live(live) => Some(live),
            Self::Imported(_) | Self::Ended(_) => None,
        }
    }

    /// Whether it is anything but a tombstone.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Live(_) | Self::Imported(_) => true,
            Self::Ended(_) => false,
        }
    }
}
