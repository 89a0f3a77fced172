//! A store moves into a database, by the commands that an operator gives.

use std::process::Stdio;

use azdo_broker::testing::TestPostgres;
use tokio_postgres::{Client, NoTls};

use crate::support::{Given, Ran, until};

#[tokio::test]
async fn a_store_moves_into_a_database_while_no_broker_runs_and_is_served_from_there_alone() {
    let mut given = Given::a_linked_broker().await;
    let generation = given.generation().await;
    let server = TestPostgres::start();
    let url = server.database_url().await;
    configure_there(&given, &url);

    let refused = copy(&given).await.refused(1);
    assert!(refused.contains("another azdo-broker uses"), "{refused}");
    given.stop().await;
    let moved = copy(&given).await.done();
    assert!(moved.contains("moved 1 connections, 1 links and 1 integrations from"), "{moved}");

    let old = given.home.serve_in_vain().await.refused(1);
    assert!(old.contains("was moved to postgresql://"), "{old}");
    serve_there(&mut given).await;
    assert_eq!(given.generation().await, generation);
    given.token().await.unwrap();
    let again = copy(&given).await.done();
    assert!(again.contains("was already moved to postgresql://"), "{again}");
    given.token().await.unwrap();
}

#[tokio::test]
async fn a_copy_that_is_killed_half_way_leaves_none_to_serve_and_goes_on_when_run_again() {
    let mut given = Given::a_linked_broker().await;
    given.stop().await;
    let server = TestPostgres::start();
    let url = server.database_url().await;
    configure_there(&given, &url);
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let database = tokio::spawn(connection);
    client.batch_execute(HOLD_AT_INTEGRATIONS).await.unwrap();

    let mut command = given.home.command(&["store", "copy", "--config", HERE, "--to", THERE]);
    let mut copying = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    until("a copy that is held", async || (count(&client, held).await == 1).then_some(())).await;
    copying.kill().await.unwrap();

    assert_eq!(count(&client, "SELECT count(*) FROM azdo_broker.connections").await, 1, "half way");
    assert_eq!(count(&client, "SELECT count(*) FROM azdo_broker.integrations").await, 0, "half way");
    let old = given.home.serve_in_vain().await.refused(1);
    assert!(old.contains("is being copied to postgresql://"), "{old}");
    let new = given.home.run(&["serve", "--config", THERE]).await.refused(1);
    assert!(new.contains("is being filled"), "{new}");

    // Its session ends, and with it the lock.
    drop(client);
    database.await.unwrap().unwrap();
    let moved = copy(&given).await.done();
    assert!(moved.contains("moved 1 connections, 1 links and 1 integrations from"), "{moved}");
    assert!(moved.contains("(resumed)"), "{moved}");
    serve_there(&mut given).await;
    given.token().await.unwrap();
}

async fn copy(given: &Given) -> Ran {
    given.home.run(&["store", "copy", "--config", HERE, "--to", THERE]).await
}

/// The same configuration, with its store in a database.
fn configure_there(given: &Given, url: &str) {
    let here = String::from_utf8(given.home.read(HERE)).unwrap();
    given.home.write(THERE, format!("{here}[store]\nurl = \"{url}\"\n"));
}

async fn serve_there(given: &mut Given) {
    given.home.write(HERE_BEFORE, given.home.read(HERE));
    given.home.write(HERE, given.home.read(THERE));
    given.restart().await;
    given.home.write(HERE, given.home.read(HERE_BEFORE));
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

const HERE: &str = "azdo-broker.toml";
const HERE_BEFORE: &str = "before.toml";
const THERE: &str = "database.toml";

/// Whoever fills the table of integrations, which comes last, waits for the session that runs this.
const HOLD_AT_INTEGRATIONS: &str = "
SELECT pg_advisory_lock(7);
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7);
    RETURN NULL;
END $$;
CREATE FUNCTION public.hold_integrations() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('azdo_broker.integrations') IS NOT NULL THEN
        CREATE OR REPLACE TRIGGER hold BEFORE INSERT ON azdo_broker.integrations
            FOR EACH STATEMENT EXECUTE FUNCTION public.hold();
    END IF;
END $$;
CREATE EVENT TRIGGER hold_integrations ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
    EXECUTE FUNCTION public.hold_integrations()";
