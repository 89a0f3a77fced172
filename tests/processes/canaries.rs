//! A17, A45, A47: no secret is in any file of the broker, in its log at `trace`, or in `/proc`.
//!
//! Canaries are what the emulator gave out and took: the real secrets of the run, in every form in which
//! text travels.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use azure_emulator::Fault;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::support::{Given, SECRET};

#[tokio::test]
async fn a17_no_secret_is_in_database_wal_audit_log_or_proc() {
    let mut given = Given::a_broker().await;
    let canaries = live_through_everything(&given).await;
    for name in ["azdo-broker.db", "azdo-broker.db-wal", "azdo-broker.db-shm", "audit.jsonl", "broker.log"] {
        assert!(given.home.path(name).exists(), "{name} is not there to be searched");
    }
    assert_eq!(canaries.findings(given.home.folder()), [""; 0]);
    for file in ["cmdline", "environ"] {
        let content = std::fs::read(format!("/proc/{}/{file}", given.broker.pid()));
        // A process that cannot be dumped may keep its environment to itself.
        assert_eq!(canaries.found_in(&content.unwrap_or_default()), None, "{file}");
    }
    given.broker.kill().await;
    assert_eq!(canaries.findings(given.home.folder()), [""; 0], "killed, it left more behind");

    assert_the_scan_finds(&canaries, &given);
}

#[tokio::test]
async fn a47_no_core_can_be_written() {
    let given = Given::a_broker().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", given.broker.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}

/// Link, release, refresh, refused refreshes, disconnect, relink, failed link; and what was secret in it.
async fn live_through_everything(given: &Given) -> Canaries {
    let mut canaries = Canaries::default();
    canaries.add("client secret", SECRET);
    for round in 0..2 {
        let begun = given.begin_link().await;
        let returned = given.sign_in(&begun.link_url).await;
        canaries.add("cookie", returned.cookie.split_once('=').unwrap().1);
        let callback = url::Url::parse(&returned.callback).unwrap();
        for (name, value) in callback.query_pairs().filter(|(name, _)| matches!(&**name, "code" | "state")) {
            canaries.add(&name, &value);
        }
        returned.arrive().await.unwrap();
        given.confirm(&begun.link_id).await.unwrap();
        given.token().await.unwrap();
        if round == 0 {
            // Once a minute and connection.
            let before = given.generation().await;
            given.demand_refresh().await;
            given.newer_than(before).await;
        }
        given.home.run(&["repos", "--json"]).await.done();
        given.home.run(&["token", "--json"]).await.done();
        given.home.run(&["connections", "disconnect", "service-user", "--yes"]).await.done();
    }
    given.emulator.fault(Fault::EntraError {
        code: 7_000_222,
        error: None,
        suberror: None,
        claims: None,
        http: None,
        count: Some(1),
    });
    let begun = given.begin_link().await;
    given.sign_in(&begun.link_url).await.arrive().await.unwrap();
    canaries.add_all_of(given);
    canaries
}

/// The same scan over the same folder, with something to be found in it.
fn assert_the_scan_finds(canaries: &Canaries, given: &Given) {
    let log = given.home.log();
    for (what, secret) in &canaries.0 {
        for form in forms(secret) {
            let line = format!("{{\"message\":\"{form}\"}}\n");
            assert!(canaries.found_in(line.as_bytes()).is_some(), "{what} would not be found as {form:?}");
        }
        given.home.write("broker.log", format!("{log}{{\"message\":\"{secret}\"}}\n"));
        assert_eq!(canaries.findings(&given.home.path("broker.log")).len(), 1, "{what} in the log");
    }
    given.home.write("broker.log", &log);
    std::fs::create_dir(given.home.path("below")).unwrap();
    given.home.write("below/left-behind", SECRET);
    let findings = canaries.findings(given.home.folder());
    assert!(matches!(&findings[..], [found] if found.contains("client secret")), "{findings:?}");
}

/// Secrets by what they are.
#[derive(Default)]
struct Canaries(BTreeMap<String, String>);

impl Canaries {
    fn add(&mut self, what: &str, secret: &str) {
        assert!(16 <= secret.len(), "too short to be recognized: {what}");
        self.0.insert(format!("{what} {}", self.0.len()), secret.to_owned());
    }

    /// All the emulator ever issued or was asked with.
    fn add_all_of(&mut self, given: &Given) {
        let requests = given.emulator.token_requests();
        assert!(3 <= requests.iter().filter(|request| request.refresh_token.is_some()).count());
        assert!(requests.iter().any(|request| request.code_verifier.is_some()));
        for request in requests {
            let secrets = [
                ("refresh token", request.refresh_token),
                ("access token", request.access_token),
                ("PKCE verifier", request.code_verifier),
                ("authorization code", request.code),
            ];
            for (what, secret) in secrets {
                if let Some(secret) = secret {
                    self.add(what, &secret);
                }
            }
        }
    }

    /// Each file at or below `place` that holds one, and which.
    fn findings(&self, place: &Path) -> Vec<String> {
        let found = |file: PathBuf| {
            let content = std::fs::read(&file).unwrap();
            self.found_in(&content).map(|what| format!("{what} in {}", file.display()))
        };
        files_below(place).into_iter().filter_map(found).collect()
    }

    fn found_in(&self, content: &[u8]) -> Option<&str> {
        // One pass for all: their first bytes are looked up, then compared.
        let forms: Vec<_> = self
            .0
            .iter()
            .flat_map(|(what, secret)| forms(secret).into_iter().map(move |form| (what.as_str(), form)))
            .collect();
        let mut by_start: HashMap<&[u8], Vec<(&str, &[u8])>> = HashMap::new();
        for (what, form) in &forms {
            let form = form.as_bytes();
            by_start.entry(&form[..8]).or_default().push((what, form));
        }
        content.windows(8).enumerate().find_map(|(at, start)| {
            let candidates = by_start.get(start)?;
            candidates.iter().find(|(_, form)| content[at..].starts_with(form)).map(|(what, _)| *what)
        })
    }
}

/// As it is, in URLs, in base64, in JSON, and the beginning of it.
fn forms(secret: &str) -> Vec<String> {
    let json = serde_json::to_string(secret).unwrap();
    vec![
        secret.to_owned(),
        url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        json.trim_matches('"').to_owned(),
        secret[..16].to_owned(),
    ]
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    if folder.is_file() {
        return vec![folder.to_owned()];
    }
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let below = entries.flat_map(|entry| {
        let kind = entry.file_type().unwrap();
        match (kind.is_dir(), kind.is_file()) {
            (true, _) => files_below(&entry.path()),
            (_, true) => vec![entry.path()],
            _ => Vec::new(),
        }
    });
    below.collect()
}
