//! A49 to A53: the credential helper asked directly, as git or something worse would.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::process::Command;

use crate::support::{ACCOUNT, Given, HELPER, Ran, run_with_input, tool};

const QUESTION: &str = "protocol=https\nhost=dev.azure.com\npath=contoso/Data%20Platform/_git/analytics\n";

#[tokio::test]
async fn a49_git_that_knows_authtype_gets_an_ephemeral_bearer_others_a_password_that_expires() {
    let given = Given::a_linked_broker().await;
    let released = given.token().await.unwrap();
    let (token, expiry) = (released.access_token, released.expires_at.unwrap().seconds);

    let bearer = ask(&given, "get", &format!("capability[]=authtype\n{QUESTION}\n")).await.done();
    let password = ask(&given, "get", &format!("{QUESTION}\n")).await.done();

    let expected = format!("capability[]=authtype\nauthtype=Bearer\ncredential={token}\nephemeral=1\n");
    assert_eq!(bearer, format!("{expected}password_expiry_utc={expiry}\n"));
    let lines: Vec<_> = password.lines().collect();
    assert!(lines[0].starts_with("username=") && lines[0].len() > 9, "{password}");
    assert_eq!(lines[1..], [format!("password={token}"), format!("password_expiry_utc={expiry}")]);
    assert_eq!(ask(&given, "store", &format!("{QUESTION}password={token}\n\n")).await.done(), "");
}

#[tokio::test]
async fn a50_hosts_that_are_not_azure_devops_get_nothing_and_the_broker_is_not_contacted() {
    let bait = Bait::set();
    let hosts = [
        "evil.test",
        "dev.azure.com.evil.test",
        "dev.azure.com:444",
        "dev.azure.com%00evil.test",
        "",
        "xn--dev-azure.com",
        "dev.azure.com.",
        "user@dev.azure.com",
        "evil.test/dev.azure.com",
        "visualstudio.com.evil.test",
        "dev.azure.com\\@evil.test",
        "dev.azure.com#evil.test",
    ];
    for host in hosts {
        bait.refuses(&format!("protocol=https\nhost={host}\npath=contoso/p/_git/r\n\n")).await;
    }
    bait.refuses("protocol=https\npath=contoso/p/_git/r\n\n").await;
    bait.takes(&format!("{}\n", QUESTION.replace("dev.azure.com", "DEV.AZURE.COM:443"))).await;
}

#[tokio::test]
async fn a51_hostile_lines_get_nothing_and_the_broker_is_not_contacted() {
    let bait = Bait::set();
    let long = format!("{QUESTION}x={}\n\n", "a".repeat(1 << 20));
    let questions = [
        QUESTION.replace("https", "http") + "\n",
        QUESTION.replace('\n', "\r\n") + "\r\n",
        QUESTION.replace("contoso", "con\rtoso") + "\n",
        QUESTION.replace("contoso", "con\0toso") + "\n",
        QUESTION.replace("_git", "\0_git") + "\n",
        QUESTION.replace("contoso", "con\ntoso") + "\n",
        format!("{QUESTION}host=dev.azure.com\n\n"),
        format!("{QUESTION}url=https://dev.azure.com/contoso/p/_git/r\n\n"),
        "protocol=https\npath=contoso/p/_git/r\n\nhost=dev.azure.com\n\n".to_owned(),
        QUESTION.trim_end().to_owned(),
        long,
    ];
    for question in questions {
        bait.refuses(&question).await;
    }
    bait.takes(&format!("{QUESTION}wwwauth[]=Bearer\nunheard-of=1\n\n")).await;
}

#[tokio::test]
async fn a51_without_a_path_the_missing_setting_is_named() {
    let bait = Bait::set();
    let ran = bait.ask("get", "protocol=https\nhost=dev.azure.com\n\n").await;
    assert!(ran.err.contains("useHttpPath") && ran.err.contains("git-setup"), "{ran:?}");
    assert_eq!((ran.code, ran.out.as_str(), bait.calls()), (Some(0), "", 0));
}

#[tokio::test]
async fn a53_a_hundred_erases_are_one_refresh() {
    let given = Given::a_linked_broker().await;
    let before = given.generation().await;
    let token = given.token().await.unwrap().access_token;
    let question = format!("{QUESTION}password={token}\n\n");
    for _ in 0..100 {
        assert_eq!(ask(&given, "erase", &question).await.done(), "");
    }
    given.newer_than(before).await;
    let renewed = given.token().await.unwrap().access_token;
    assert_eq!(ask(&given, "erase", &format!("{QUESTION}password={renewed}\n\n")).await.done(), "");
    assert_ne!(renewed, token);
    assert_eq!(given.requests_for_users().len(), 2, "the code, and one refresh");
}

#[tokio::test]
async fn a53_without_a_broker_the_helper_ends_in_time_and_says_so() {
    let mut given = Given::a_linked_broker().await;
    let secret = given.token().await.unwrap().access_token;
    given.broker.kill().await;
    for (operation, out) in [("get", "quit=1\n"), ("erase", "")] {
        let began = tokio::time::Instant::now();
        let ran = ask(&given, operation, &format!("{QUESTION}password={secret}\n\n")).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(ran.err.contains("no broker answers") && !ran.err.contains(&secret), "{ran:?}");
        assert_eq!(ran.done(), out);
    }
}

async fn ask(given: &Given, operation: &str, question: &str) -> Ran {
    let mut command = tool(HELPER, given.home.folder());
    command.env("AZDO_BROKER_ADDRESS", given.home.address("job-runner"));
    run_with_input(command.env("AZDO_BROKER_ACCOUNT", ACCOUNT).arg(operation), question.as_bytes()).await
}

/// A socket where a broker could be, which counts who comes.
struct Bait {
    folder: tempfile::TempDir,
    calls: Arc<AtomicUsize>,
}

impl Bait {
    fn set() -> Self {
        let (folder, calls) = (tempfile::tempdir().unwrap(), Arc::new(AtomicUsize::new(0)));
        let listener = UnixListener::bind(folder.path().join("bait.sock")).unwrap();
        let counted = calls.clone();
        tokio::spawn(async move {
            // Counted, then hung up on.
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { folder, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn ask(&self, operation: &str, question: &str) -> Ran {
        let address = format!("unix:{}", self.folder.path().join("bait.sock").display());
        let mut command: Command = tool(HELPER, self.folder.path());
        command.env("AZDO_BROKER_ADDRESS", address).env("AZDO_BROKER_ACCOUNT", ACCOUNT).arg(operation);
        run_with_input(&mut command, question.as_bytes()).await
    }

    async fn refuses(&self, question: &str) {
        for operation in ["get", "erase"] {
            let asked = question.replacen("protocol=", "password=secret\nprotocol=", 1);
            let ran = self.ask(operation, if operation == "get" { question } else { &asked }).await;
            let shown: String = question.chars().take(200).collect();
            assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{shown:?}: {ran:?}");
            assert_eq!(self.calls(), 0, "the broker was asked about {shown:?}");
        }
    }

    /// The control: a good question does reach the socket.
    async fn takes(&self, question: &str) {
        self.ask("get", question).await;
        assert_ne!(self.calls(), 0, "the bait would not have seen a call");
    }
}
