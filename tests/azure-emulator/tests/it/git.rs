//! Real git, through the proxy.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use azure_emulator::{Emulator, Options};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::Given;

const ANALYTICS: &str = "https://dev.azure.com/contoso/Data%20Platform/_git/analytics";

struct Git {
    given: Given,
    home: TempDir,
}

impl Git {
    async fn ready() -> Self {
        let (given, home) = (Given::an_emulator().await, TempDir::new().unwrap());
        std::fs::write(home.path().join("ca.pem"), given.emulator.ca_pem()).unwrap();
        Self { given, home }
    }

    async fn run(&self, authorization: &str, arguments: &[&str]) -> Output {
        self.run_in(self.home.path(), authorization, arguments).await
    }

    async fn run_in(&self, directory: &Path, authorization: &str, arguments: &[&str]) -> Output {
        Command::new("git")
            .current_dir(directory)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env_remove("GIT_SSL_CAINFO")
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .env_remove("GIT_DIR")
            .env("HOME", self.home.path())
            .env("GIT_TERMINAL_PROMPT", "0")
            .args(["-c", &format!("http.proxy={}", self.given.emulator.proxy_url())])
            .args(["-c", &format!("http.sslCAInfo={}", self.home.path().join("ca.pem").display())])
            .args(["-c", &format!("http.extraHeader=Authorization: {authorization}")])
            .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
            .args(arguments)
            .output()
            .await
            .unwrap()
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// 10.
#[tokio::test]
async fn git_clones_with_a_bearer_and_with_a_password() {
    let git = Git::ready().await;
    let token = git.given.access_token_of("svc@contoso.com").await;
    let with_password = ANALYTICS.replace("https://", &format!("https://oauth2:{token}@"));

    let bearer = git.run(&format!("Bearer {token}"), &["clone", ANALYTICS, "one"]).await;
    let password = git.run("", &["-c", "http.extraHeader=", "clone", &with_password, "two"]).await;

    assert!(bearer.status.success(), "{}", errors(&bearer));
    assert!(password.status.success(), "{}", errors(&password));
    let model = std::fs::read_to_string(git.home.path().join("one/models/orders.sql")).unwrap();
    assert_eq!(model, "select 1 as order_id\n");
}

#[tokio::test]
async fn an_expired_token_fails_the_clone() {
    let git = Git::ready().await;
    let token = git.given.access_token_of("svc@contoso.com").await;
    git.given.emulator.advance(Duration::from_secs(5_401));

    let output = git.run(&format!("Bearer {token}"), &["clone", ANALYTICS, "one"]).await;

    assert!(!output.status.success());
    let last = git.given.emulator.requests().pop().unwrap();
    assert_eq!((last.status, last.host.as_str()), (Some(401), "dev.azure.com"));
}

#[tokio::test]
async fn denied_disabled_missing_and_stakeholder_look_the_same() {
    let git = Git::ready().await;
    let svc = git.given.access_token_of("svc@contoso.com").await;
    let ben = git.given.access_token_of("ben@contoso.com").await;

    for (token, name) in
        [(&svc, "secret"), (&svc, "old"), (&svc, "nothing"), (&svc, "analytics.git"), (&ben, "analytics")]
    {
        let url = format!("https://dev.azure.com/contoso/Data%20Platform/_git/{name}");
        let output = git.run(&format!("Bearer {token}"), &["ls-remote", &url]).await;
        assert!(errors(&output).contains("TF401019"), "{name}: {}", errors(&output));
    }
}

#[tokio::test]
async fn a_push_needs_the_contribute_permission() {
    let git = Git::ready().await;
    let svc = format!("Bearer {}", git.given.access_token_of("svc@contoso.com").await);
    let website = "https://dev.azure.com/contoso/_git/website";
    for (url, directory) in [(ANALYTICS, "analytics"), (website, "website")] {
        let output = git.run(&svc, &["clone", url, directory]).await;
        assert!(output.status.success(), "{}", errors(&output));
        git.run(&svc, &["-C", directory, "commit", "--allow-empty", "-m", "More"]).await;
    }

    let allowed = git.run(&svc, &["-C", "analytics", "push"]).await;
    let refused = git.run(&svc, &["-C", "website", "push"]).await;

    assert!(allowed.status.success(), "{}", errors(&allowed));
    assert!(errors(&refused).contains("403"), "{}", errors(&refused));
}

/// 11: version 0 unless switched.
#[tokio::test]
async fn git_gets_protocol_version_0() {
    let git = Git::ready().await;
    let token = git.given.access_token_of("svc@contoso.com").await;
    let path = "/contoso/Data%20Platform/_git/_optimized/analytics/info/refs?service=git-upload-pack";

    let answer = git.given.get(path, &token).header("git-protocol", "version=2").send().await.unwrap();

    assert_eq!(answer.headers()["content-type"], "application/x-git-upload-pack-advertisement");
    let body = answer.text().await.unwrap();
    assert!(body.contains("refs/heads/main") && !body.contains("version 2"), "{body}");
}

#[tokio::test]
async fn pushed_commits_survive_in_a_data_directory() {
    let data = TempDir::new().unwrap();
    let start = async || {
        Emulator::start(Options { data_dir: Some(data.path().to_owned()), ..Options::default() }).await
    };
    let repository = data.path().join("repositories/eeee0000-0000-4000-a000-000000000001.git");

    start().await.unwrap().stop().await;
    std::fs::write(repository.join("mark"), "kept").unwrap();
    start().await.unwrap().stop().await;

    assert_eq!(std::fs::read_to_string(repository.join("mark")).unwrap(), "kept");
}

/// Contract 4.5: neither form of the body gets past without `multi_ack`, unless switched.
#[tokio::test]
async fn an_upload_without_multi_ack_is_refused_also_when_it_is_compressed() {
    let git = Git::ready().await;
    let token = git.given.access_token_of("svc@contoso.com").await;
    let want = "want 1111111111111111111111111111111111111111 ofs-delta side-band-64k\n";
    let plain = format!("{:04x}{want}00000009done\n", want.len() + 4);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, plain.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let post = async |body: Vec<u8>, encoding: &str| {
        let url = format!("{ANALYTICS}/git-upload-pack");
        let request = git.given.client.post(url).bearer_auth(&token).header("content-encoding", encoding);
        let request = request.header("content-type", "application/x-git-upload-pack-request");
        let answer = request.body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };

    let (status, text) = post(plain.clone().into_bytes(), "identity").await;
    let (status_packed, text_packed) = post(packed, "gzip").await;
    git.given.emulator.fault(azure_emulator::Fault::RequireMultiAck { on: false });
    let (_, switched) = post(plain.into_bytes(), "identity").await;

    assert!(status == 400 && text.contains("TF401041"), "{status} {text}");
    assert!(status_packed == 400 && text_packed.contains("TF401041"), "{status_packed} {text_packed}");
    assert!(!switched.contains("TF401041"), "{switched}");
}

#[tokio::test]
async fn shallow_and_partial_clones_work() {
    let git = Git::ready().await;
    let authorization = format!("Bearer {}", git.given.access_token_of("svc@contoso.com").await);

    for (option, directory) in [("--depth=1", "shallow"), ("--filter=blob:none", "partial")] {
        let output = git.run(&authorization, &["clone", option, ANALYTICS, directory]).await;
        assert!(output.status.success(), "{}", errors(&output));
        let ignored = errors(&output).contains("filtering not recognized");
        assert!(!ignored, "{}", errors(&output));
        assert!(git.home.path().join(directory).join("models/orders.sql").exists());
    }
}
