//! `GetGitCredential`: for URLs of the account's own organization, and for nothing else.

use azdo_broker::testing::git_urls::{self, Expected};
use tonic::Code;

use crate::support::{TestApp, assert_invalid, assert_refused};

#[tokio::test]
async fn a_url_of_the_own_organization_gets_the_token() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    let token = job.token().await.unwrap();
    for url in [
        "https://dev.azure.com/contoso/Data%20Platform/_git/analytics",
        "https://dev.azure.com/CONTOSO/Data%20Platform/_git/analytics",
        "https://contoso@dev.azure.com/contoso/Data%20Platform/_git/analytics",
        "https://dev.azure.com/contoso/_git/website",
        "https://contoso.visualstudio.com/Data%20Platform/_git/analytics",
        "https://contoso.visualstudio.com/DefaultCollection/Data%20Platform/_git/analytics",
    ] {
        let credential = job.git(url).await.unwrap();
        assert_eq!(credential.token_fingerprint, token.token_fingerprint, "{url}");
        assert!(credential.access_token == token.access_token);
        assert_eq!(credential.organization, "contoso");
        assert_eq!(credential.expires_at, token.expires_at);
        assert!(!credential.username.is_empty());
    }
    assert_eq!(app.requests_for_users().len(), 1);
}

/// P3: a credential for git is a release like any other.
#[tokio::test]
async fn a_credential_for_git_is_on_record() {
    let app = TestApp::linked().await;
    let credential = app.job_runner().await.git("https://dev.azure.com/contoso/_git/website").await.unwrap();
    let released = app.released();
    assert_eq!(released.len(), 1);
    assert_eq!(released[0]["act"], "GetGitCredential");
    assert_eq!(released[0]["outcome"]["fingerprint"], credential.token_fingerprint.as_str());
}

/// A hostile submodule gets nothing (design.md 4.1), and the try is on record.
#[tokio::test]
async fn a_url_of_another_organization_gets_nothing() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    for url in [
        "https://dev.azure.com/fabrikam/p/_git/r",
        "https://fabrikam.visualstudio.com/contoso/_git/r",
        "https://dev.azure.com/contoso2/p/_git/r",
        "https://contoso@dev.azure.com/fabrikam/p/_git/r",
    ] {
        let status = assert_refused(job.git(url).await, Code::PermissionDenied, "ORGANIZATION_MISMATCH");
        assert!(!status.message().contains("fabrikam"), "{}", status.message());
    }
    assert_eq!(app.released().len(), 0);
    let refused = app.files.audit().into_iter();
    let refused = refused.filter(|line| line["outcome"]["reason"] == "ORGANIZATION_MISMATCH");
    assert_eq!(refused.count(), 4);
}

/// A27, A50: neither host nor path is repaired, and nobody upstream hears of it.
#[tokio::test]
async fn a27_a_hostile_url_is_invalid_and_nothing_is_asked_upstream() {
    let app = TestApp::linked().await;
    let before = app.emulator.requests().len();
    let long = format!("https://dev.azure.com/contoso/p/_git/{}", "r".repeat(10_000));
    let job = app.job_runner().await;
    for url in [
        "",
        "contoso",
        "http://dev.azure.com/contoso/p/_git/r",
        "ssh://git@ssh.dev.azure.com/v3/contoso/p/r",
        "https://dev.azure.com.evil.test/contoso/p/_git/r",
        "https://evil.test/dev.azure.com/contoso/p/_git/r",
        "https://dev.azure.com@evil.test/contoso/p/_git/r",
        "https://evil.test#@dev.azure.com/contoso/p/_git/r",
        "https://evil.test?@dev.azure.com/contoso/p/_git/r",
        "https://dev.azure.com:444/contoso/p/_git/r",
        "https://dev.azure.com\\@evil.test/contoso/p/_git/r",
        "https://dev.azure.com/contoso/../fabrikam/p/_git/r",
        "https://dev.azure.com/contoso%2f..%2ffabrikam/p/_git/r",
        "https://dev.azure.com/contoso/p/_git/r\nhost=evil.test",
        "https://dev.azure.com/contoso/p/_git/r\0",
        "https://dev.azure.com/contoso/p/_git/r?x=1",
        "https://dev.azure.com/contoso",
        "https://dev.azure.com/",
        &long,
    ] {
        let answer = job.git(url).await;
        assert!(answer.is_err(), "{url:?}");
        assert_invalid(answer, "url");
    }
    assert_eq!(app.emulator.requests().len(), before);
    assert_eq!(app.released().len(), 0);
}

/// A27, A50: the table that the helper's test reads too.
#[tokio::test]
async fn a27_every_url_of_the_table_is_answered_refused_or_invalid() {
    let app = TestApp::linked().await;
    let job = app.job_runner().await;
    let before = app.devops_requests();
    let rows = git_urls::rows();
    assert!(60 <= rows.len(), "only {} rows", rows.len());
    let mut own = 0;
    for (expected, url) in rows {
        let answer = job.git(&url).await;
        match expected {
            Expected::Own => {
                own += 1;
                assert!(answer.is_ok(), "{url:?}: {answer:?}");
            }
            Expected::Foreign => {
                assert_refused(answer, Code::PermissionDenied, "ORGANIZATION_MISMATCH");
            }
            Expected::None => {
                assert!(answer.is_err(), "{url:?}");
                assert_invalid(answer, "url");
            }
        }
    }
    assert_eq!(app.released().len(), own);
    assert_eq!(app.devops_requests(), before, "nobody upstream hears of it");
}
