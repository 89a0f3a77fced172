//! Changes of connections for those who watch, in the order in which they were written.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Act, MemoryHandle, Work};
use crate::clock::earlier;
use crate::connection::{Change, ConnectionKey};
use crate::ids::Generation;
use crate::store::error::StoreError;
use crate::store::outbox::{ChangePage, ChangeRow, Position};
use crate::store::rows::{ConnectionRow, Loaded};

#[derive(Default)]
pub(super) struct Outbox {
    rows: VecDeque<ChangeRow>,
    /// The number of the last one that was written.
    last: i64,
}

impl MemoryHandle {
    pub(in crate::store) async fn outbox_end(&self) -> Result<Loaded<Position>, StoreError> {
        let end = |at: &mut Work<'_>| Loaded { row: position(at.state.outbox.last), store_now: at.now };
        self.work("look where the outbox ends", end).await
    }

    pub(in crate::store) async fn changes_after(
        &self,
        after: &Position,
        limit: usize,
    ) -> Result<Option<ChangePage>, StoreError> {
        let read = |at: &mut Work<'_>| {
            let Outbox { rows, last } = &at.state.outbox;
            let gone = rows.front().map_or(*last, |first| first.position.id - 1);
            if after.outbox != OUTBOX || after.id < gone || *last < after.id {
                return None;
            }
            let rows: Vec<ChangeRow> =
                rows.iter().filter(|row| after.id < row.position.id).take(limit).cloned().collect();
            let next = rows.last().map_or_else(|| after.clone(), |row| row.position.clone());
            let is_last = rows.len() < limit;
            Some(ChangePage { rows, next, is_last, is_more_coming: false, store_now: at.now })
        };
        self.work("read the outbox", read).await
    }

    pub(in crate::store) async fn tell_losses(&self, limit: usize) -> Result<usize, StoreError> {
        let tell = |at: &mut Work<'_>| {
            let now = at.now;
            let is_lost = |row: &&ConnectionRow| {
                row.live
                    && row.lease_until.is_some_and(|until| until <= now)
                    && row.failure.as_ref().is_some_and(|failure| failure.lost)
            };
            let lost = at.state.connections.values().filter(is_lost).take(limit);
            let lost: Vec<ConnectionRow> = lost.cloned().collect();
            for row in &lost {
                let free = ConnectionRow { lease_until: None, ..row.clone() };
                at.write(Act::Release, &row.key, Some(free));
                at.append(&row.key, row.generation, Some(Change::NeedsRelink));
            }
            lost.len()
        };
        self.work("tell losses", tell).await
    }

    pub(in crate::store) async fn prune_outbox(
        &self,
        keep_for: Duration,
        keep: u64,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let prune = |at: &mut Work<'_>| {
            let old = earlier(at.now, keep_for);
            let Outbox { rows, last } = &mut at.state.outbox;
            let surplus = last.saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
            let goes = |row: &&ChangeRow| row.happened_at <= old || row.position.id <= surplus;
            let count = rows.iter().take(limit).take_while(goes).count();
            rows.drain(..count);
            count
        };
        self.work("prune the outbox", prune).await
    }
}

impl Work<'_> {
    pub(super) fn append(&mut self, key: &ConnectionKey, generation: Generation, change: Option<Change>) {
        let Some(change) = change else { return };
        let happened_at = self.now;
        let outbox = &mut self.state.outbox;
        outbox.last += 1;
        let position = position(outbox.last);
        outbox.rows.push_back(ChangeRow { key: key.clone(), generation, change, happened_at, position });
    }
}

fn position(id: i64) -> Position {
    Position { outbox: OUTBOX.to_owned(), xact: 0, id }
}

const OUTBOX: &str = "memory";
