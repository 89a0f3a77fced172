//! Tests of the configuration: what an operator gets wrong, and what is said about it.

use super::*;

fn read(text: &str) -> Result<Config, Problems> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.toml"), "").unwrap();
    let path = folder.path().join("azdo-broker.toml");
    std::fs::write(&path, text).unwrap();
    Config::read(&path)
}

const SOCKET: &str = "[[listen.socket]]\nname = \"jobs\"\npath = \"jobs.sock\"\n";

#[test]
fn a_socket_is_enough() {
    let config = read(SOCKET).unwrap();
    assert_eq!(config.entra.authority.as_str(), "https://login.microsoftonline.com/");
    let StorePlace::File(store) = config.store else { panic!("a file is the default") };
    assert!(store.is_absolute(), "relative paths are relative to the file");
}

#[test]
fn a66_all_mistakes_are_reported_together_with_their_paths() {
    let problems = read(
        "[lisen]\n[listen]\nlinks = \"nowhere\"\nlnks = 1\n[[listen.socket]]\nname = \"a b\"\npath = \"x\"\nmod = 1\n[refresh]\ntick = \"-1s\"\n[audit]\nsync = \"tape\"\n[entra]\nauthority = \"http://login.example\"\n",
    )
    .unwrap_err()
    .to_string();
    for place in [
        "lisen: is not a known section",
        "listen.lnks: is not a known key",
        "listen.socket.0.mod: is not a known key",
        "listen.links:",
        "listen.socket[0].name:",
        "refresh.tick:",
        "audit:",
        "entra.authority: must be https",
    ] {
        assert!(problems.contains(place), "{place} is missing in:\n{problems}");
    }
}

#[test]
fn a13_tcp_without_client_certificates_does_not_exist() {
    let problems = read(
        &format!("{SOCKET}[listen]\ntcp = \"0.0.0.0:8443\"\n")
            .replace("[[listen.socket]]\nname = \"jobs\"\npath = \"jobs.sock\"\n", ""),
    )
    .unwrap_err()
    .to_string();
    assert!(problems.contains("listen.tcp: needs [tls]"), "{problems}");
}

#[test]
fn a_browser_authority_off_localhost_is_refused() {
    let text = format!("{SOCKET}[entra]\nbrowser_authority = \"http://evil.example\"\n");
    assert!(read(&text).unwrap_err().to_string().contains("entra.browser_authority"));
}

#[test]
fn without_any_listener_nobody_could_call() {
    assert!(read("").unwrap_err().to_string().contains("listen: needs at least one"));
}

/// What people copy must work as it stands, and show the defaults that hold.
#[test]
fn the_example_configuration_is_good_and_shows_the_defaults() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/azdo-broker.toml");
    let example = Config::read(&example).unwrap_or_else(|problems| panic!("{problems}"));
    let defaults = read(SOCKET).unwrap();
    assert_eq!((example.links, example.admin), (defaults.links, defaults.admin));
    let name = |place: &StorePlace| match place {
        StorePlace::File(path) => path.file_name().map(ToOwned::to_owned),
        StorePlace::Postgres(_) => None,
    };
    assert_eq!(name(&example.store), name(&defaults.store));
    assert_eq!(example.key_file.file_name(), defaults.key_file.file_name());
    assert_eq!(example.entra.authority, defaults.entra.authority);
    assert_eq!(example.devops.base, defaults.devops.base);
    assert_eq!(format!("{:?}", example.refresh), format!("{:?}", defaults.refresh));
    assert_eq!(example.token_rates, defaults.token_rates);
    assert_eq!(example.in_flight_max, defaults.in_flight_max);
    assert_eq!(example.connection_age_max, defaults.connection_age_max);
    assert_eq!(example.sockets[0].mode, defaults.sockets[0].mode);
}

#[test]
fn a_database_without_tls_off_this_machine_is_refused_with_what_to_do() {
    let read_store = |store: &str| read(&format!("{SOCKET}[store]\n{store}\n"));
    for (store, refusal) in [
        (
            "url = \"postgresql://u@db.example/d?sslmode=disable\"",
            "store.url: asks for no TLS, and db.example is not on this machine: leave sslmode out, or give the server a certificate",
        ),
        (
            "url = \"postgresql://u:p@localhost/d\"",
            "store.url: holds a password: put it into the file that store.password_file names",
        ),
        (
            "path = \"a\"\nurl = \"postgresql://u@localhost/d\"",
            "store: has path and url: a store is in a file or in a database, not in both",
        ),
        ("password_file = \"p\"", "store.password_file: is for a PostgreSQL store: give its url"),
        (
            "url = \"postgresql://u@localhost/d\"\npassword_file = \"missing\"",
            "store.password_file: cannot read",
        ),
    ] {
        let problems = read_store(store).unwrap_err().to_string();
        assert!(problems.starts_with(refusal), "{problems}");
    }
    let config = read_store("url = \"postgresql://u@db.example/d\"").unwrap();
    assert_eq!(config.store.to_string(), "postgresql://u@db.example/d");
}
