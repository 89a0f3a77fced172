//! A backup of the store is put back by hand, as an operator would: what to see, and what to do then.

use crate::support::Given;

/// Design 6.13: nobody who was disconnected since comes back unnoticed, and an operator who meant it says so.
#[tokio::test]
async fn a_restored_backup_is_refused_by_name_listed_and_then_accepted() {
    let mut given = Given::a_linked_broker().await;
    given.stop().await;
    let backup = given.home.read(STORE);
    given.restart().await;
    given.home.run(&["connections", "disconnect", "service-user", "--yes"]).await.done();
    given.stop().await;

    given.home.write(STORE, backup);
    given.restart().await;

    let refused = given.home.run(&["token"]).await.refused(1);
    let names_it = |text: &str| text.contains("connections accept-restore");
    assert!(refused.contains("ROLLBACK_SUSPECTED") && names_it(&refused), "{refused}");
    assert!(names_it(&given.home.log()), "the log says it, too");
    let listed = given.home.run(&["connections", "accept-restore"]).await;
    assert!(listed.out.contains("disconnected: comes back to life"), "{listed:?}");
    assert!(listed.err.contains("1 to accept; nothing was changed: --yes"), "{listed:?}");
    given.home.run(&["token"]).await.refused(1);

    let note = "--note=restored on purpose";
    let accepted = given.home.run(&["connections", "accept-restore", "--yes", note]).await.done();
    assert!(accepted.ends_with("1 accepted\n"), "{accepted}");

    given.home.run(&["token"]).await.done();
    given.broker.kill().await;
    given.restart().await;
    given.home.run(&["token"]).await.done();
}

const STORE: &str = "azdo-broker.db";
