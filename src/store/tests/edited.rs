//! Columns that somebody edited fail alone (P9).

use super::*;

#[tokio::test]
async fn a21_a_row_with_edited_columns_fails_alone() {
    let given = Given::a_store();
    let store = given.open().await;
    assert_eq!(store.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    let edit = sqlite_of(&store).write("edit", |at| {
        at.tx.execute_batch(
            "INSERT INTO connections (account, role, generation, live, refresh_at, failure, sealed) VALUES
             ('acme', 'administrator', 1, 1, 1, NULL, x'00'),
             ('acme', 'developer/ana', 1, 1, 9223372036854775807, 'no JSON', x'00');",
        )
    });
    edit.await.unwrap();

    let rows = store.connections(&key().account, None, 2).await.unwrap().row;

    let roles: Vec<_> = rows.iter().map(|row| row.key.role.to_string()).collect();
    assert_eq!(roles, ["developer/ana", "service_user"]);
    assert_eq!(rows[0].refresh_at, Some(Timestamp::MAX));
    assert!(store.claim_due(10, Duration::from_secs(1)).await.unwrap().is_empty());
}

/// P9: a row that somebody edited fails alone; the others are refreshed as ever.
#[tokio::test]
async fn a21_an_edited_column_keeps_no_other_row_from_being_claimed() {
    for edit in [
        "failure = CAST(x'ff' AS TEXT)",
        "role = CAST(x'ff' AS TEXT)",
        "account = CAST(x'ff' AS TEXT)",
        "fence = 9223372036854775807",
    ] {
        let given = Given::a_store();
        let store = given.open().await;
        let due = Some(given.clock.now().wall);
        for account in ["acme", "edited"] {
            let key = ConnectionKey { account: account.parse().unwrap(), role: Role::ServiceUser };
            let write = ConnectionWrite { key, refresh_at: due, ..write(None, 1, b"sealed") };
            assert_eq!(store.commit(write).await.unwrap(), Cas::Won);
        }
        let other = rusqlite::Connection::open(given.path()).unwrap();
        other.execute(&format!("UPDATE connections SET {edit} WHERE account = 'edited'"), []).unwrap();
        given.clock.advance(Duration::from_secs(1));

        let claimed = store.claim_due(9, Duration::from_secs(15)).await.unwrap();

        assert!(claimed.iter().any(|claimed| claimed.row.key == key()), "{edit}");
    }
}

/// The same for links: one that cannot be read keeps no other from being wiped.
#[tokio::test]
async fn a21_an_edited_column_keeps_no_other_link_from_being_found_expired() {
    for edit in ["role", "account", "id", "state_hash"] {
        let given = Given::a_store();
        let store = given.open().await;
        for id in ["whole", "edited"] {
            let row = LinkRow {
                id: id.parse().unwrap(),
                key: key(),
                state_hash: format!("state of {id}"),
                version: 1,
                open: true,
                expires_at: Timestamp::UNIX_EPOCH,
                sealed: b"begun".into(),
            };
            store.insert_link(row).await.unwrap();
        }
        let other = rusqlite::Connection::open(given.path()).unwrap();
        let sql = format!("UPDATE links SET {edit} = CAST(x'ff' AS TEXT) WHERE id = 'edited'");
        assert_eq!(other.execute(&sql, []).unwrap(), 1);

        let expired = store.expired_links(9).await.unwrap();

        assert!(expired.iter().any(|row| row.id.as_str() == "whole"), "{edit}");
    }
}
