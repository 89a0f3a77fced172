//! Columns that somebody edited fail alone (P9).

use super::postgres::a_store_in;
use super::*;
use crate::testing::TestPostgres;

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

/// What the types of PostgreSQL's columns leave to an editor.
#[tokio::test]
async fn a21_an_edited_row_of_postgresql_fails_alone() {
    let server = TestPostgres::start();
    for (number, edit) in [
        "failure = 'no JSON'",
        "role = 'administrator'",
        "role = E'\\x01'",
        "account = ''",
        "account = repeat('a', 10000)",
        "fence = 9223372036854775807",
        "generation = -9223372036854775808",
        "refresh_at = -9223372036854775808",
        "retry_at = -9223372036854775808, lease_until = -9223372036854775808",
        "grant_until = 9223372036854775807",
        "sealed = ''",
    ]
    .into_iter()
    .enumerate()
    {
        let place = server.database().await;
        let store = a_store_in(&place).await;
        for role in [Role::ServiceUser, Role::Developer("edited".parse().unwrap())] {
            let key = ConnectionKey { role, ..key() };
            let due = Some(Timestamp::UNIX_EPOCH);
            let write =
                ConnectionWrite { key, refresh_at: due, grant_until: due, ..write(None, 1, b"sealed") };
            assert_eq!(store.commit(write).await.unwrap(), Cas::Won);
        }
        let edit = format!("UPDATE azdo_broker.connections SET {edit} WHERE role = 'developer/edited'");
        server.execute(&format!("broker{number}"), &edit).await;

        let listed = store.connections(&key().account, None, 9).await.unwrap().row;
        assert!(listed.iter().any(|row| row.key == key()), "{edit}");
        let keys = vec![key(), ConnectionKey { role: Role::Developer("edited".parse().unwrap()), ..key() }];
        let compared = store.generations(keys).await.unwrap();
        assert!(compared.iter().any(|compared| compared.key == key()), "{edit}");
        let expiring = store.expiring_grants(Timestamp::MIN..Timestamp::MAX, 9).await.unwrap();
        assert!(expiring.iter().any(|(expiring, _)| *expiring == key()), "{edit}");
        let claimed = store.claim_due(9, Duration::from_secs(15)).await.unwrap();
        assert!(claimed.iter().any(|claimed| claimed.row.key == key()), "{edit}");
        assert_eq!(store.commit(write(Some(1), 2, b"new")).await.unwrap(), Cas::Won, "{edit}");
    }
}

#[tokio::test]
async fn a21_an_edited_link_or_integration_of_postgresql_fails_alone() {
    let server = TestPostgres::start();
    let store = a_store_in(&server.database().await).await;
    for id in ["a-no-id", "b-no-account", "c-no-role", "d-ages-old", "whole"] {
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
    for account in ["edited", "whole"] {
        let row = IntegrationRow { account: account.parse().unwrap(), version: 1, sealed: b"s".into() };
        assert_eq!(store.put_integration(None, row).await.unwrap(), Cas::Won);
    }
    let edit = "UPDATE azdo_broker.links SET id = E'\\x01' WHERE id = 'a-no-id';
                UPDATE azdo_broker.links SET account = '' WHERE id = 'b-no-account';
                UPDATE azdo_broker.links SET role = 'administrator' WHERE id = 'c-no-role';
                UPDATE azdo_broker.links SET expires_at = -9223372036854775808 WHERE id = 'd-ages-old';
                UPDATE azdo_broker.integrations SET account = '' WHERE account = 'edited'";
    server.execute("broker0", edit).await;

    let ids = |rows: Vec<LinkRow>| rows.into_iter().map(|row| row.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(store.expired_links(9).await.unwrap()), ["d-ages-old", "whole"]);
    assert_eq!(ids(store.open_links(&key().account, None).await.unwrap()), ["d-ages-old", "whole"]);
    let integrations = store.integrations(None, 9).await.unwrap();
    assert_eq!(integrations.into_iter().map(|row| row.account.to_string()).collect::<Vec<_>>(), ["whole"]);
    assert_eq!(store.delete_links(Timestamp::MAX).await.unwrap(), 5, "what names nothing goes too");
}
