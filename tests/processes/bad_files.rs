//! A19, A66, F05: keys, stores and ports that are not what they should be: nothing starts, nothing is lost.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Broker, Given, Home};

const CONFIG: &str = "azdo-broker.toml";
const KEY: &str = "azdo-broker.key";
const STORE: &str = "azdo-broker.db";

#[tokio::test]
async fn a66_a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let home = Home::with_store(None).await;
    std::fs::set_permissions(home.path(KEY), std::fs::Permissions::from_mode(0o644)).unwrap();
    for args in [["check", "--config", CONFIG], ["serve", "--config", CONFIG]] {
        let told = home.run(&args).await.refused(1);
        assert!(told.contains("chmod o="), "{told}");
    }
}

#[tokio::test]
async fn a19_another_key_does_not_open_the_store_and_changes_no_byte() {
    let home = Home::with_store(None).await;
    let before = home.read(STORE);
    std::fs::rename(home.path(KEY), home.path("right.key")).unwrap();
    home.run(&["keys", "new", KEY]).await.done();

    let told = home.serve_in_vain().await.refused(1);

    assert!(told.contains("cannot unwrap the keyring"), "{told}");
    assert_eq!(home.read(STORE), before);
    std::fs::rename(home.path("right.key"), home.path(KEY)).unwrap();
    Broker::start(&home).await;
}

/// With connections in it, and killed, so that the write-ahead log still holds them.
#[tokio::test]
async fn a19_a_store_of_another_installation_is_refused_whole() {
    let mut given = Given::a_linked_broker().await;
    given.broker.kill().await;
    let wal = "azdo-broker.db-wal";
    let before = (given.home.read(STORE), given.home.read(wal));
    assert!(!before.1.is_empty());
    std::fs::rename(given.home.path(KEY), given.home.path("right.key")).unwrap();
    given.home.run(&["keys", "new", KEY]).await.done();

    let told = given.home.serve_in_vain().await.refused(1);
    assert!(told.contains("cannot unwrap the keyring"), "{told}");

    std::fs::rename(given.home.path("right.key"), given.home.path(KEY)).unwrap();
    given.restart().await;
    given.token().await.unwrap();
}

#[tokio::test]
async fn f05_without_a_store_serve_tells_how_to_make_one_and_makes_nothing() {
    let home = Home::new(None);
    home.run(&["keys", "new", KEY]).await.done();
    for args in [["serve", "--config", CONFIG], ["check", "--config", CONFIG]] {
        let told = home.run(&args).await.refused(1);
        assert!(told.contains("azdo-broker store init"), "{told}");
    }
    let mut left: Vec<_> =
        std::fs::read_dir(home.folder()).unwrap().map(|f| f.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [KEY, CONFIG, "policy.toml"]);
}

#[tokio::test]
async fn f05_what_exists_is_never_made_again() {
    let home = Home::with_store(None).await;
    let before = (home.read(STORE), home.read(KEY));
    assert!(home.run(&["store", "init", "--config", CONFIG]).await.refused(1).contains("exists"));
    assert!(home.run(&["keys", "new", KEY]).await.refused(1).contains(KEY));
    assert_eq!((home.read(STORE), home.read(KEY)), before);
}

#[tokio::test]
async fn f05_a_damaged_store_is_refused_by_name_and_stays_as_it_is() {
    let home = Home::with_store(None).await;
    let whole = home.read(STORE);
    let mut page = whole.clone();
    page[4096..4096 + 200].fill(0xA5);
    let cases: [(&str, Vec<u8>); 5] = [
        ("cut in the middle", whole[..whole.len() / 2].to_vec()),
        ("cut by a page", whole[..whole.len() - 4096].to_vec()),
        ("empty", Vec::new()),
        ("no database", b"these are not the bytes you look for".repeat(200)),
        ("a page overwritten", page),
    ];
    for (what, bytes) in cases {
        home.write(STORE, &bytes);
        let told = home.serve_in_vain().await.refused(1);
        assert!(told.contains(STORE) && told.contains("restore a backup"), "{what}: {told}");
        assert_eq!(told.trim().lines().count(), 1, "{what}: {told}");
        assert_eq!(home.read(STORE), bytes, "{what}");
    }
    home.write(STORE, whole);
    Broker::start(&home).await;
}

#[tokio::test]
async fn a_second_process_on_the_same_store_is_refused_and_the_first_goes_on() {
    let given = Given::a_linked_broker().await;
    for args in [["serve", "--config", CONFIG].as_slice(), &["store", "init", "--config", CONFIG]] {
        let told = given.home.run(args).await.refused(1);
        assert!(told.contains("another azdo-broker uses") || told.contains("exists"), "{told}");
    }
    given.token().await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named_and_fails_the_start() {
    let home = Home::with_store(None).await;
    for (setting, port) in [("listen.links", home.links), ("listen.admin", home.admin)] {
        let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let told = home.serve_in_vain().await.refused(1);
        assert!(told.contains(setting) && told.contains(&port.to_string()), "{told}");
        assert!(!home.path("operator.sock").exists(), "a socket of a broker that never was");
    }
}
