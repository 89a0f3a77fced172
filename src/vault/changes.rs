//! Changes of connections, for those who watch: read on from a cursor.
//!
//! A cursor is sealed to the store and to what is watched, so that it is as opaque as the contract says: it can be
//! neither made nor read by others, nor be used for the watch of another account.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{Vault, VaultError};
use crate::clock::earlier;
use crate::connection::{Change, ConnectionKey};
use crate::ids::{AccountId, Generation};
use crate::seal::Place;
use crate::store::{ChangePage, ChangeRow, Position};

/// Up to where a watcher was told everything, and when that was.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Cursor {
    position: Position,
    /// By the store's clock.
    pub at: Timestamp,
}

#[derive(Clone, Debug)]
pub struct Changed {
    pub key: ConnectionKey,
    pub generation: Generation,
    pub change: Change,
    pub happened_at: Timestamp,
    /// With this one told.
    pub cursor: Cursor,
}

/// What came after a cursor.
#[derive(Debug)]
pub struct Changes {
    pub changes: Vec<Changed>,
    /// With all of them told.
    pub cursor: Cursor,
    pub is_last: bool,
    /// Look again soon, whether or not anybody wakes.
    pub is_more_coming: bool,
}

impl Vault {
    /// Marked as changed when there may be something new to be read. Subscribe first, then read.
    pub fn watchers_bell(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Something changed, here or through another replica.
    pub fn wake_watchers(&self) {
        self.changed.send_replace(());
    }

    /// The cursor after which everything comes that is not so yet.
    pub async fn cursor_now(&self) -> Result<Cursor, VaultError> {
        let loaded = self.store.outbox_end().await?;
        Ok(Cursor { position: loaded.row, at: loaded.store_now })
    }

    /// What came after the cursor, at most `limit`; `None` if some of it may be gone.
    pub async fn changes_after(&self, cursor: &Cursor, limit: usize) -> Result<Option<Changes>, VaultError> {
        let page = self.store.changes_after(&cursor.position, limit).await?;
        Ok(page.filter(|page| earlier(page.store_now, KEEP_FOR) <= cursor.at).map(Changes::from))
    }

    /// The text of a cursor, for the watch of this account, or of all.
    pub fn seal_cursor(&self, account: Option<&AccountId>, cursor: &Cursor) -> String {
        let plain = serde_json::to_vec(cursor).expect("a cursor is plain data");
        URL_SAFE_NO_PAD.encode(self.sealer.seal(&place(account), &plain))
    }

    /// `None` for a text that is no cursor of this watch, or one of another store.
    pub fn open_cursor(&self, account: Option<&AccountId>, text: &str) -> Option<Cursor> {
        let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let plain = self.sealer.open(&place(account), &sealed).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    /// Tells losses that were foreseen by somebody who did not live to say what came of it.
    pub async fn tell_losses(&self) -> Result<(), VaultError> {
        if 0 < self.store.tell_losses(TOLD_AT_ONCE).await? {
            self.wake_watchers();
        }
        Ok(())
    }

    /// Deletes changes that are no longer kept, a bounded number of them; true if there may be more.
    pub async fn prune_outbox(&self) -> Result<bool, VaultError> {
        Ok(self.store.prune_outbox(KEEP_FOR, KEEP_MAX, PRUNED_AT_ONCE).await? == PRUNED_AT_ONCE)
    }
}

impl From<ChangePage> for Changes {
    fn from(page: ChangePage) -> Self {
        Self {
            changes: page.rows.into_iter().map(Changed::from).collect(),
            cursor: Cursor { position: page.next, at: page.store_now },
            is_last: page.is_last,
            is_more_coming: page.is_more_coming,
        }
    }
}

impl From<ChangeRow> for Changed {
    fn from(row: ChangeRow) -> Self {
        let ChangeRow { key, generation, change, happened_at, position } = row;
        Self { key, generation, change, happened_at, cursor: Cursor { position, at: happened_at } }
    }
}

/// No account is named by an empty text.
fn place(account: Option<&AccountId>) -> Place<'_> {
    Place { table: "cursor", key: account.map_or("", AccountId::as_str), generation: 0 }
}

/// The contract's age of a cursor.
const KEEP_FOR: std::time::Duration = std::time::Duration::from_hours(24);
/// Some 150 MB. A day of refreshes of twenty thousand connections in use, or of a million that are kept alive.
const KEEP_MAX: u64 = 1_000_000;
const TOLD_AT_ONCE: usize = 1_000;
/// One transaction, of some milliseconds.
const PRUNED_AT_ONCE: usize = 5_000;
