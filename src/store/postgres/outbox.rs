//! Changes of connections for those who watch.
//!
//! Transactions end in another order than they begin, so the numbers of rows say nothing about what is still to
//! come before them. A row therefore carries the number of its transaction, and is read only when every
//! transaction of a lower number has ended: whoever has read up to there has missed nothing. A transaction that
//! anybody in the server keeps open delays what is told, and loses none of it.

use std::time::Duration;

use tokio_postgres::Row;

use super::Postgres;
use super::rows::{self, key, micros, time};
use crate::clock::earlier;
use crate::connection::Change;
use crate::ids::Generation;
use crate::store::error::StoreError;
use crate::store::outbox::{ChangePage, ChangeRow, Position};
use crate::store::rows::Loaded;

impl Postgres {
    pub(in crate::store) async fn outbox_end(&self) -> Result<Loaded<Position>, StoreError> {
        let lent = self.lend("look where the outbox ends").await?;
        let row = lent.row(END, &[]).await?.expect("the outbox has one state");
        lent.done();
        Ok(Loaded {
            row: Position { outbox: row.get(0), xact: row.get(1), id: 0 },
            store_now: time(row.get(2)),
        })
    }

    pub(in crate::store) async fn changes_after(
        &self,
        position: &Position,
        limit: usize,
    ) -> Result<Option<ChangePage>, StoreError> {
        let lent = self.lend("read the outbox").await?;
        // One statement, one snapshot: nothing is deleted between the look at what is gone and the rows.
        let found = lent.rows(CHANGES_AFTER, &[&position.xact, &position.id, &rows::limit(limit)]).await?;
        lent.done();
        let head = found.first().expect("the outbox has one state");
        let (outbox, horizon): (&str, i64) = (head.get(0), head.get(1));
        let gone: (i64, i64) = (head.get(3), head.get(4));
        let at = (position.xact, position.id);
        // One behind the horizon is of a server that forgot it.
        if outbox != position.outbox || at < gone || horizon < position.xact {
            return Ok(None);
        }
        let placed = |row: &Row| {
            let id: Option<i64> = row.get(12);
            id.map(|id| Position { outbox: outbox.to_owned(), xact: row.get(11), id })
        };
        let is_last = found.iter().filter_map(placed).count() < limit;
        let next = match found.last().and_then(placed) {
            Some(last) if !is_last => last,
            _ => Position { outbox: outbox.to_owned(), xact: horizon, id: 0 },
        };
        Ok(Some(ChangePage {
            rows: found.iter().filter_map(|row| change(row, placed(row)?)).collect(),
            next,
            is_last,
            is_more_coming: head.get(5),
            store_now: time(head.get(2)),
        }))
    }

    pub(in crate::store) async fn tell_losses(&self, limit: usize) -> Result<usize, StoreError> {
        let lent = self.lend("tell losses").await?;
        let told = lent.execute(TELL_LOSSES, &[&rows::limit(limit), &Change::NeedsRelink.as_str()]).await?;
        lent.done();
        Ok(usize::try_from(told).unwrap_or(usize::MAX))
    }

    pub(in crate::store) async fn prune_outbox(
        &self,
        keep_for: Duration,
        keep: u64,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let lent = self.lend("prune the outbox").await?;
        lent.batch("BEGIN").await?;
        // Of two replicas one waits for the other.
        lent.row("SELECT 1 FROM azdo_broker.outbox_state FOR UPDATE", &[]).await?;
        let sql = "SELECT azdo_broker.store_now(), last_value FROM azdo_broker.outbox_id_seq";
        let row = lent.row(sql, &[]).await?.expect("the clock always answers");
        let old = micros(earlier(time(row.get(0)), keep_for));
        let surplus = row.get::<_, i64>(1).saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
        let first = lent
            .rows(
                "SELECT xact, id, happened_at FROM azdo_broker.outbox ORDER BY xact, id LIMIT $1",
                &[&rows::limit(limit)],
            )
            .await?;
        // Always a beginning of it, so that one position says what is gone.
        let goes =
            first.iter().take_while(|row| row.get::<_, i64>(2) <= old || row.get::<_, i64>(1) <= surplus);
        let mut deleted = 0;
        if let Some(last) = goes.last() {
            let gone: (i64, i64) = (last.get(0), last.get(1));
            let sql = "UPDATE azdo_broker.outbox_state SET gone_xact = $1, gone_id = $2";
            lent.execute(sql, &[&gone.0, &gone.1]).await?;
            let sql = "DELETE FROM azdo_broker.outbox WHERE (xact, id) <= ($1, $2)";
            deleted = lent.execute(sql, &[&gone.0, &gone.1]).await?;
        }
        lent.batch("COMMIT").await?;
        lent.done();
        Ok(usize::try_from(deleted).unwrap_or(usize::MAX))
    }
}

/// `None` for a row that names no change of a connection: it cannot be one of ours.
fn change(row: &Row, position: Position) -> Option<ChangeRow> {
    let key = key(row, 6)?;
    let Some(change) = Change::parse(row.get(9)) else {
        tracing::warn!("a row of the outbox names no change and is ignored");
        return None;
    };
    let (generation, happened_at) = (Generation(row.get(8)), time(row.get(10)));
    Some(ChangeRow { key, generation, change, happened_at, position })
}

/// The lowest transaction that has not ended, which is what the next one to read may be. A server that was
/// promoted is on another timeline, and may lack what its predecessor told: to it, the outbox is another one.
const END: &str = "
SELECT name || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint, azdo_broker.store_now()
FROM azdo_broker.outbox_state";

const CHANGES_AFTER: &str = "
WITH head AS MATERIALIZED (
    SELECT name || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS outbox,
           pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon,
           azdo_broker.store_now() AS now, gone_xact, gone_id
    FROM azdo_broker.outbox_state)
SELECT outbox, horizon, now, gone_xact, gone_id,
       EXISTS (SELECT 1 FROM azdo_broker.outbox WHERE xact >= head.horizon),
       account, role, generation, change, happened_at, xact, id
FROM head LEFT JOIN LATERAL (
    SELECT * FROM azdo_broker.outbox o
    WHERE (o.xact, o.id) > ($1, $2) AND o.xact < head.horizon ORDER BY o.xact, o.id LIMIT $3) o ON true
ORDER BY xact, id";

/// What another replica tells at this moment is skipped. By an index of its own: leases that ran out are many
/// only where much is lost.
const TELL_LOSSES: &str = r#"
WITH lost AS (
    SELECT account, role FROM azdo_broker.connections
    WHERE live AND lease_until <= (SELECT azdo_broker.store_now()) AND strpos(failure, '"lost":true') > 0
    LIMIT $1 FOR UPDATE SKIP LOCKED),
ended AS (
    UPDATE azdo_broker.connections c SET lease_holder = NULL, lease_until = NULL
    FROM lost WHERE c.account = lost.account AND c.role = lost.role
    RETURNING c.account, c.role, c.generation)
INSERT INTO azdo_broker.outbox (account, role, generation, change, happened_at)
SELECT account, role, generation, $2, azdo_broker.store_now() FROM ended"#;
