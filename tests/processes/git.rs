//! A52: real git over the job runner's socket, beside a helper that would write tokens down.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use azure_emulator::Fault;

use crate::support::{ANALYTICS, Job, OTHER_ORGANIZATION, Way, until};

/// With the git of today and with older ones: a bearer token, or a user name and a password.
#[tokio::test]
async fn a52_a_clone_beside_a_storing_helper_leaves_no_token_on_disk() {
    for way in Way::all() {
        clones_and_leaves_no_token_on_disk(way).await;
    }
}

async fn clones_and_leaves_no_token_on_disk(way: Way) {
    let job = Job::that_asks(way.clone()).await;
    job.git(&["config", "--global", "credential.helper", "store"]).await.done();
    job.set_up().await;

    for (url, folder) in [
        (ANALYTICS, "clone"),
        ("https://someone@dev.azure.com/contoso/Data%20Platform/_git/analytics", "by-user"),
        ("https://contoso.visualstudio.com/Data%20Platform/_git/analytics", "old-host"),
    ] {
        job.git(&["clone", "--quiet", url, folder]).await.done();
        assert!(job.home.path().join(folder).join("models/orders.sql").exists(), "{way:?}");
    }
    job.git(&["-C", "clone", "fetch", "--quiet"]).await.done();

    assert_eq!(job.schemes().into_iter().collect::<Vec<_>>(), [way.scheme], "{way:?}");
    let tokens = job.given.requests_for_users().into_iter().filter_map(|request| request.access_token);
    let tokens: Vec<_> = tokens.collect();
    assert_eq!(tokens.len(), 1, "one token for all of it: {way:?}");
    assert!(!job.home.path().join(".git-credentials").exists(), "the storing helper was told: {way:?}");
    assert!(!holds(job.home.path(), &tokens[0]), "the token is on disk: {way:?}");
    std::fs::write(job.home.path().join("clone/canary"), format!("x{}x", tokens[0])).unwrap();
    assert!(holds(job.home.path(), &tokens[0]), "the search would find nothing");
}

/// git tells the helper that a token was refused, in the words of its time; the broker replaces it.
#[tokio::test]
async fn a_token_that_azure_devops_refuses_is_told_to_the_broker_and_replaced() {
    for way in Way::all() {
        let job = Job::that_asks(way.clone()).await;
        job.set_up().await;
        job.given.emulator.fault(Fault::NotAuthorized { count: Some(1) });

        assert_ne!(job.git(&["clone", "--quiet", ANALYTICS, "refused"]).await.code, Some(0), "{way:?}");

        until("a refresh", async || {
            let mut requests = job.given.requests_for_users().into_iter();
            requests.find(|request| request.grant_type == "refresh_token")
        })
        .await;
        job.git(&["clone", "--quiet", ANALYTICS, "clone"]).await.done();
        assert_eq!(job.schemes().into_iter().collect::<Vec<_>>(), [way.scheme], "{way:?}");
    }
}

#[tokio::test]
async fn what_the_service_user_may_not_read_and_other_organizations_are_not_cloned() {
    let job = Job::ready().await;
    job.set_up().await;
    let denied = job.git(&["clone", &ANALYTICS.replace("analytics", "secret"), "denied"]).await;
    assert!(denied.refused(128).contains("not found"));
    let foreign = job.git(&["clone", &ANALYTICS.replace("contoso", OTHER_ORGANIZATION), "foreign"]).await;
    let told = foreign.refused(128);
    assert!(told.contains("organization"), "{told}");
    assert!(!job.home.path().join("denied").exists() && !job.home.path().join("foreign").exists());
}

/// The worst set-up: our helper asked for every host, with the path.
#[tokio::test]
async fn a52_a_hostile_submodule_is_sent_no_credential() {
    let job = Job::ready().await;
    job.set_up().await;
    job.git(&["config", "--global", "--add", "credential.helper", "azdo-broker"]).await.done();
    job.git(&["config", "--global", "credential.useHttpPath", "true"]).await.done();
    let evil = Evil::listens().await;
    job.push_a_submodule_at(&format!("http://127.0.0.1:{}/contoso/p/_git/r", evil.port), None).await;
    let released = job.released();

    let cloned = job.git(&["clone", "--recurse-submodules", ANALYTICS, "caught"]).await;

    cloned.refused(1);
    let heard = evil.heard.lock().unwrap().to_lowercase();
    assert!(heard.contains("get /contoso/p/_git/r/info/refs"), "nobody came to the listener: {heard}");
    assert!(!heard.contains("authorization:"), "{heard}");
    assert_eq!(job.released(), released + 1, "a credential was released for more than the repository");
    assert!(job.home.path().join("caught/README.md").exists());
}

/// A git server that wants to know who you are.
struct Evil {
    port: u16,
    heard: Arc<Mutex<String>>,
}

impl Evil {
    async fn listens() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, heard) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(String::new())));
        let notes = heard.clone();
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                let mut request = vec![0; 64 * 1024];
                let len = caller.read(&mut request).await.unwrap_or(0);
                notes.lock().unwrap().push_str(&String::from_utf8_lossy(&request[..len]));
                let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"evil\"\r\n\
                    WWW-Authenticate: Bearer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _gone = caller.write_all(answer.as_bytes()).await;
            }
        });
        Self { port, heard }
    }
}

/// Whether any file below `folder` holds the text.
fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            return holds(&entry.path(), text);
        }
        let content = std::fs::read(entry.path()).unwrap();
        content.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
