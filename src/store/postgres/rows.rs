//! How rows are read. Columns are not trusted: an edited one may cost time but not a row, and one that
//! names nothing is left out.

use tokio_postgres::Row;

use crate::connection::{ConnectionKey, Role};
use crate::ids::Generation;
pub(super) use crate::store::columns::{CONNECTION, INTEGRATION, LINK, limit, micros, plain, time};
use crate::store::rows::{ConnectionRow, IntegrationRow, LinkRow};

/// Of [`CONNECTION`].
pub(super) fn connection(row: &Row) -> Option<ConnectionRow> {
    let failure: Option<String> = row.get(7);
    Some(ConnectionRow {
        key: key(row, 0)?,
        generation: Generation(row.get(2)),
        sealed: row.get(3),
        live: row.get(4),
        refresh_at: row.get::<_, Option<i64>>(5).map(time),
        retry_at: row.get::<_, Option<i64>>(6).map(time),
        // For people only. An unreadable one is as good as none.
        failure: failure.and_then(|failure| serde_json::from_str(&failure).ok()),
        lease_until: row.get::<_, Option<i64>>(8).map(time),
        fence: row.get(9),
    })
}

/// Of [`LINK`].
pub(super) fn link(row: &Row) -> Option<LinkRow> {
    let id: &str = row.get(0);
    let Ok(id) = id.parse() else {
        tracing::warn!("a row of the store names no link and is ignored");
        return None;
    };
    Some(LinkRow {
        id,
        key: key(row, 1)?,
        state_hash: row.get(3),
        version: row.get(4),
        open: row.get(5),
        expires_at: time(row.get(6)),
        sealed: row.get(7),
    })
}

/// Of [`INTEGRATION`].
pub(super) fn integration(row: &Row) -> Option<IntegrationRow> {
    let account: &str = row.get(0);
    let Ok(account) = account.parse() else {
        tracing::warn!("a row of the store names no account and is ignored");
        return None;
    };
    Some(IntegrationRow { account, version: row.get(1), sealed: row.get(2) })
}

/// The account in this column, the role in the next one.
pub(super) fn key(row: &Row, at: usize) -> Option<ConnectionKey> {
    let (account, role): (&str, &str) = (row.get(at), row.get(at + 1));
    let (Ok(account), Some(role)) = (account.parse(), Role::parse(role)) else {
        tracing::warn!("a row of the store names no connection and is ignored");
        return None;
    };
    Some(ConnectionKey { account, role })
}
