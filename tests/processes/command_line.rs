//! The command line as scripts use it: nobody to ask, JSON, and no secret unless it is asked for.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::support::{Given, Ran, SERVICE_USER};

#[tokio::test]
async fn without_a_terminal_and_without_expect_nothing_is_confirmed() {
    let given = Given::a_broker().await;
    let ran = link(&given, &[]).await;
    assert!(ran.out.is_empty());
    let told = ran.refused(1);
    assert!(told.contains("--expect LOGIN") && told.contains(SERVICE_USER), "{told}");
    assert!(given.connections().await.is_empty());
}

#[tokio::test]
async fn only_the_expected_login_is_confirmed() {
    let given = Given::a_broker().await;
    // The broker itself ends the link of somebody unexpected.
    let told = link(&given, &["--expect=ana@contoso.com"]).await.refused(1);
    assert!(told.contains("nothing was connected"), "{told}");
    assert!(given.connections().await.is_empty());

    let told = link(&given, &["--expect=SVC@contoso.com"]).await.done();
    assert!(told.contains(SERVICE_USER), "{told}");
    let connections = given.connections().await;
    assert_eq!((&connections[0]["state"], connections.len()), (&"connected".into(), 1));
}

#[tokio::test]
async fn json_answers_parse_and_hold_no_secret() {
    let given = Given::a_broker().await;
    let told = link(&given, &["--expect", SERVICE_USER, "--json"]).await.json();
    assert_eq!(told["identity"]["login"], SERVICE_USER);
    let token = given.token().await.unwrap().access_token;
    let commands: [&[&str]; 6] = [
        &["integration", "show"],
        &["integration", "list"],
        &["connections"],
        &["repos", "--all"],
        &["token"],
        &["connections", "disconnect", "service-user", "--yes"],
    ];
    for command in commands {
        let answer = given.home.run(&[command, &["--json"]].concat()).await.json();
        assert!(answer.is_object(), "{answer}");
        assert!(!answer.to_string().contains(&token) && !answer.to_string().contains("emu8Q"), "{answer}");
    }
    let refusal = given.home.run(&["token", "--json"]).await.refused(1);
    let refusal: serde_json::Value = serde_json::from_str(&refusal).unwrap();
    assert_eq!(refusal["error"]["reason"], "NOT_LINKED");
}

#[tokio::test]
async fn a_token_is_printed_only_when_it_is_to_be_revealed() {
    let given = Given::a_linked_broker().await;
    let token = given.token().await.unwrap();
    let shown = given.home.run(&["token"]).await;
    assert!(shown.out.contains(&token.token_fingerprint), "{shown:?}");
    assert!(!shown.out.contains(&token.access_token) && !shown.err.contains(&token.access_token));
    let revealed = given.home.run(&["token", "--reveal"]).await.done();
    assert_eq!(revealed, format!("{}\n", token.access_token), "nothing but the token, for scripts");
}

#[tokio::test]
async fn repositories_are_those_that_can_be_cloned() {
    let given = Given::a_linked_broker().await;
    let told = given.home.run(&["repos", "--json"]).await.json();
    let names: Vec<_> = told["repos"].as_array().unwrap().iter().map(|repo| repo["name"].clone()).collect();
    assert_eq!(names, ["analytics", "empty", "website"]);
    let table = given.home.run(&["repos"]).await.done();
    assert!(table.contains("analytics") && !table.contains("secret"), "{table}");
}

#[tokio::test]
async fn a_watch_prints_each_change_as_it_happens_and_outlives_the_broker() {
    let mut given = Given::a_linked_broker().await;
    let mut command = given.home.command(&["connections", "watch", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut troubles = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut next = async || {
        let line = lines.next_line().await.unwrap().expect("goes on until it is stopped");
        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        (told["kind"].clone(), told["connection"]["state"].clone())
    };
    assert_eq!(next().await, ("present".into(), "connected".into()));
    assert_eq!(next().await, ("synced".into(), serde_json::Value::Null));

    given.broker.kill().await;
    let trouble = troubles.next_line().await.unwrap().unwrap();
    assert!(trouble.contains(": goes on in "), "{trouble}");
    given.restart().await;
    given.home.run(&["connections", "disconnect", "service-user", "--yes"]).await.done();

    assert_eq!(next().await, ("disconnected".into(), "disconnected".into()));
}

/// `link service-user` with nobody at the terminal, and somebody who signs in elsewhere.
async fn link(given: &Given, args: &[&str]) -> Ran {
    let mut command = given.home.command(&["link", "service-user"]);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut err = String::new();
    let url = loop {
        let line = lines.next_line().await.unwrap().expect("a link URL");
        err += &line;
        if let Some(url) = line.trim().strip_prefix("http://localhost") {
            break format!("http://localhost{url}");
        }
    };
    given.sign_in(&url).await.arrive().await.unwrap();
    lines.into_inner().read_to_string(&mut err).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    Ran { code: output.status.code(), out, err }
}
