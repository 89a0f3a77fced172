//! Rows as a store keeps them: sealed bytes, and beside them what it needs to find and schedule them.

use std::fmt;

use jiff::Timestamp;

use crate::connection::{Change, ConnectionKey, Failure};
use crate::ids::{AccountId, Generation, LinkId};

/// How a compare-and-swap ended. Losing is no error: look again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Cas {
    Won,
    Lost,
}

/// A row, and what the store's clock said when it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loaded<T> {
    pub row: T,
    pub store_now: Timestamp,
}

#[derive(Clone, Eq, PartialEq)]
pub struct ConnectionRow {
    pub key: ConnectionKey,
    pub generation: Generation,
    pub sealed: Vec<u8>,
    /// False for the tombstone of a disconnected connection.
    pub live: bool,
    /// When it is due, unless something stands in the way. `None`: only on demand.
    pub refresh_at: Option<Timestamp>,
    /// Paused until then.
    pub retry_at: Option<Timestamp>,
    pub failure: Option<Failure>,
    pub lease_until: Option<Timestamp>,
    /// Grows with each lease and names it.
    pub fence: i64,
}

#[derive(Clone, Eq, PartialEq)]
pub struct ConnectionWrite {
    pub key: ConnectionKey,
    /// The generation that was seen; `None`: there was no row, not even a tombstone.
    pub expected: Option<Generation>,
    pub generation: Generation,
    pub sealed: Vec<u8>,
    pub live: bool,
    pub refresh_at: Option<Timestamp>,
    /// When the grant dies of idleness; for counting alone.
    pub grant_until: Option<Timestamp>,
    /// Why it is not to be refreshed, and until when. Only what takes another row's place may say so.
    pub paused: Option<(Failure, Timestamp)>,
    /// That the grant may be used up, if the row says so, is left as it is, with its pause.
    pub keeps_loss: bool,
    /// What is written to the outbox with it; nothing, if nothing changed for those who watch.
    pub change: Option<Change>,
}

/// A connection whose lease is ours: `row.fence` names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claimed {
    pub row: ConnectionRow,
    pub store_now: Timestamp,
}

/// How a claim on demand ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Claim {
    Won(Box<Claimed>),
    /// Never linked, or disconnected: then with its tombstone.
    Absent(Option<Box<ConnectionRow>>),
    /// Somebody refreshes it already.
    Leased {
        until: Timestamp,
    },
    Paused {
        until: Timestamp,
        failure: Option<Failure>,
    },
}

/// What a refresh that brought nothing leaves behind, under the lease it had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    pub key: ConnectionKey,
    pub generation: Generation,
    pub fence: i64,
    /// `None`: nothing failed.
    pub failure: Option<Failure>,
    /// Paused until then.
    pub retry_at: Timestamp,
    /// What is written to the outbox with it.
    pub change: Option<Change>,
}

#[derive(Clone, Eq, PartialEq)]
pub struct LinkRow {
    pub id: LinkId,
    pub key: ConnectionKey,
    pub state_hash: String,
    pub version: i64,
    /// False once it connected or ended.
    pub open: bool,
    pub expires_at: Timestamp,
    pub sealed: Vec<u8>,
}

/// The version a link must still have, and what it shall become.
pub type LinkWrite = (i64, LinkRow);

#[derive(Clone, Eq, PartialEq)]
pub struct IntegrationRow {
    pub account: AccountId,
    pub version: i64,
    pub sealed: Vec<u8>,
}

/// Where a store stands in a move from one place to another (`store copy`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Relocation {
    /// Nobody moves it: it may be served.
    Home,
    /// It is being filled from another store.
    Arriving,
    /// It is being copied to the place that is named here.
    Leaving(String),
    /// It was copied there, whole. What stays here is old.
    Moved(String),
}

/// A page of everything a store keeps, in the order of its keys.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Each with the time at which its grant dies of idleness, which no row says.
    pub connections: Vec<(ConnectionRow, Option<Timestamp>)>,
    pub links: Vec<LinkRow>,
    pub integrations: Vec<IntegrationRow>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<Cursor>,
}

/// A place in the order of all rows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) enum Cursor {
    #[default]
    Start,
    Connection(String, String),
    Link(String),
    Integration(String),
}

/// How many rows there are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    pub connections: u64,
    pub links: u64,
    pub integrations: u64,
}

/// What replicas compare with what they hold of a connection.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Compared {
    pub key: ConnectionKey,
    pub generation: Generation,
}

/// What another replica changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// With the generation it has now.
    Connection(ConnectionKey, Generation),
    Integration(AccountId),
    /// Something may have been missed: whatever is held is to be compared.
    Anything,
    /// The same, and the store was away: it may have gone back.
    StoreReturned,
}

impl Relocation {
    const LEAVING: &str = "leaving ";
    const MOVED: &str = "moved ";
    const ARRIVING: &str = "arriving";

    /// The text of its column; none for a store at home.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Home => None,
            Self::Arriving => Some(Self::ARRIVING.to_owned()),
            Self::Leaving(place) => Some(format!("{}{place}", Self::LEAVING)),
            Self::Moved(place) => Some(format!("{}{place}", Self::MOVED)),
        }
    }

    /// A text that nobody of us wrote stands for a move that is not over: the store is not served.
    pub(super) fn parse(text: Option<&str>) -> Self {
        match text {
            None => Self::Home,
            Some(Self::ARRIVING) => Self::Arriving,
            Some(text) => match text.strip_prefix(Self::MOVED) {
                Some(place) => Self::Moved(place.to_owned()),
                None => Self::Leaving(text.strip_prefix(Self::LEAVING).unwrap_or("somewhere").to_owned()),
            },
        }
    }
}

impl Count {
    pub(super) fn all(self) -> u64 {
        self.connections + self.links + self.integrations
    }

    pub(super) fn add(&mut self, page: &Page) {
        self.connections += page.connections.len() as u64;
        self.links += page.links.len() as u64;
        self.integrations += page.integrations.len() as u64;
    }
}

impl Cas {
    /// Won if both were.
    pub fn and(self, other: Self) -> Self {
        if self == Self::Won { other } else { Self::Lost }
    }

    pub(super) fn of_changed_rows(changed: usize) -> Self {
        if changed == 0 { Self::Lost } else { Self::Won }
    }
}

impl ConnectionWrite {
    /// A generation that does not grow would let an old answer pass for a new one.
    pub(super) fn assert_grows(&self) {
        assert!(self.expected < Some(self.generation), "the generation of {} must grow", self.key);
    }
}

/// Sealed bytes are no secret, but kilobytes of them help nobody.
macro_rules! debug_without_sealed {
    ($row:ident { $($field:ident),* }) => {
        impl fmt::Debug for $row {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($row))
                    $(.field(stringify!($field), &self.$field))*
                    .field("sealed_len", &self.sealed.len())
                    .finish()
            }
        }
    };
}

debug_without_sealed!(ConnectionRow {
    key,
    generation,
    live,
    refresh_at,
    retry_at,
    failure,
    lease_until,
    fence
});
debug_without_sealed!(ConnectionWrite { key, expected, generation, live, refresh_at, paused, change });
debug_without_sealed!(LinkRow { id, key, state_hash, version, open, expires_at });
debug_without_sealed!(IntegrationRow { account, version });
