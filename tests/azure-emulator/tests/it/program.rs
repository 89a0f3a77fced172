//! The emulator as a program.

use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_azure-emulator");

#[tokio::test]
async fn the_program_tells_where_it_is_and_ends_on_sigterm() {
    let directory = TempDir::new().unwrap();
    let ready = directory.path().join("env.sh");
    let mut program = Command::new(PROGRAM)
        .args(["serve", "--data-dir"])
        .arg(directory.path().join("data"))
        .arg("--ready-file")
        .arg(&ready)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut output = BufReader::new(program.stdout.take().unwrap()).lines();
    output.next_line().await.unwrap();

    let text = std::fs::read_to_string(&ready).unwrap();
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let authority = std::fs::read_to_string(value("AZURE_EMULATOR_CA=")).unwrap();
    Command::new("kill").arg("-TERM").arg(program.id().unwrap().to_string()).status().await.unwrap();
    let status = tokio::time::timeout(Duration::from_secs(5), program.wait()).await.unwrap().unwrap();

    assert!(value("AZURE_EMULATOR_PROXY=").starts_with("http://127.0.0.1:"));
    assert!(value("AZURE_EMULATOR_CONTROL=").starts_with("http://127.0.0.1:"));
    assert!(value("AZURE_EMULATOR_BROWSER=").starts_with("http://localhost:"));
    assert!(authority.starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn the_help_says_what_it_is_how_to_reach_it_and_what_it_can_do() {
    let output = Command::new(PROGRAM).arg("--help").output().await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for words in ["Azure DevOps REST", "HTTPS_PROXY", "/_emu/faults", "serve", "world-example"] {
        assert!(help.contains(words), "{words}: {help}");
    }

    let output = Command::new(PROGRAM).args(["serve", "--help"]).output().await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for option in
        ["--world", "--data-dir", "--control-port", "--allow-non-loopback", "--ready-file", "--seed"]
    {
        assert!(help.contains(option), "{option}: {help}");
    }
    let wrong = Command::new(PROGRAM).arg("srve").output().await.unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test]
async fn the_example_that_is_printed_can_be_served() {
    let output = Command::new(PROGRAM).arg("world-example").output().await.unwrap();

    let text = String::from_utf8(output.stdout).unwrap();
    assert!(azure_emulator::World::from_toml(&text).is_ok());
}

#[tokio::test]
async fn a_second_run_in_the_same_directory_keeps_the_authority() {
    let directory = TempDir::new().unwrap();
    let start = async || {
        let ca_dir = Some(directory.path().to_owned());
        azure_emulator::Emulator::start(azure_emulator::Options { ca_dir, ..Default::default() })
            .await
            .unwrap()
    };

    let first = start().await;
    let second = start().await;

    assert_eq!(first.ca_pem(), second.ca_pem());
}
