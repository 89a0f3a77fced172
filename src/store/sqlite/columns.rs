//! How values lie in columns of `SQLite`, which may hold anything whatever their type says.

use rusqlite::Row;

pub(super) use crate::store::columns::{CONNECTION, INTEGRATION, LINK, limit, micros, plain, time};

/// A text column; none where an edit left something that is no text.
pub(super) fn text<'a>(row: &'a Row<'_>, at: usize) -> rusqlite::Result<Option<&'a str>> {
    Ok(row.get_ref(at)?.as_str_or_null().ok().flatten())
}
