//! Many connections, without asking for each: rows of the store, sealed anew from one that was linked.
//!
//! A record says nothing of the row it lies in; that is bound to it by its seal (design.md 6.12). So a real
//! connection's record is opened once and sealed for each of a million other developers, with the library's own
//! keyring and seal. They share a user and a grant, which goes on working when it is used (azure.md 2.2).

use std::path::Path;

use azdo_broker::ids::StoreId;
use azdo_broker::keys::{FileKey, KeyProvider};
use azdo_broker::seal::{Keyring, Place, Sealer};
use rusqlite::{Connection, params};

use crate::broker::{ACCOUNT, Broker};
use crate::outcome::Outcome;

/// Fills the store of a broker that does not run with clones `developer/c{n}` of `developer/u0`: the first `due`
/// are due by now, the others in days. Tells the generation of all of them.
pub(crate) fn fill(broker: &Broker, count: usize, due: usize, now_us: i64) -> Outcome<i64> {
    let mut store = Connection::open(broker.dir.join("azdo-broker.db"))?;
    // Only while it is filled: what is lost on a power cut is filled again.
    store.pragma_update(None, "synchronous", "OFF")?;
    let seal = sealer(&store, &broker.dir.join("../azdo-broker.key"))?;
    let (sealed, generation): (Vec<u8>, i64) = store.query_row(
        "SELECT sealed, generation FROM connections WHERE role = 'developer/u0'",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let origin = format!("{ACCOUNT}/developer/u0");
    let plain = seal.open(&Place { table: TABLE, key: &origin, generation }, &sealed)?;
    let tx = store.transaction()?;
    {
        let mut insert = tx.prepare(
            "INSERT INTO connections (account, role, generation, live, refresh_at, fence, sealed)
             VALUES (?1, ?2, ?3, 1, ?4, 0, ?5)",
        )?;
        for n in 0..count {
            let role = format!("developer/c{n:07}");
            let place = Place { table: TABLE, key: &format!("{ACCOUNT}/{role}"), generation };
            // Those that are not due come due over the next days, as weekly dates do.
            let later = i64::try_from(n)? * 100_000 + 24 * 3600 * 1_000_000;
            let refresh_at = if n < due { now_us - 1_000_000 } else { now_us + later };
            insert.execute(params![ACCOUNT, role, generation, refresh_at, seal.seal(&place, &plain)])?;
        }
    }
    tx.commit()?;
    store.pragma_update(None, "wal_checkpoint", "TRUNCATE")?;
    drop(store);
    // What was filled without waiting is on the disk before anything is measured.
    std::fs::File::open(broker.dir.join("azdo-broker.db"))?.sync_all()?;
    Ok(generation)
}

/// How many clones have another generation by now: those that were refreshed, once or more often.
pub(crate) fn refreshed(broker: &Broker, generation: i64) -> Outcome<usize> {
    let store = Connection::open(broker.dir.join("azdo-broker.db"))?;
    let count: i64 = store.query_row(
        "SELECT count(*) FROM connections WHERE role LIKE 'developer/c%' AND ?1 < generation",
        [generation],
        |row| row.get(0),
    )?;
    Ok(usize::try_from(count)?)
}

fn sealer(store: &Connection, key: &Path) -> Outcome<Sealer> {
    let (id, wrapped): (String, Vec<u8>) =
        store.query_row("SELECT store_id, keyring FROM store", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let keys = KeyProvider::File(FileKey::open(key)?);
    let keyring = keys.unwrap(&id, &wrapped)?;
    let id: StoreId = id.parse()?;
    Ok(Sealer::new(id, Keyring::from_bytes(&keyring)?))
}

const TABLE: &str = "connection";
