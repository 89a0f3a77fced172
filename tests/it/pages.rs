//! What every page of the `links` listener owes a browser.

use reqwest::Method;

use crate::support::{Browser, Page, TestApp, begin_request};

fn assert_guarded(page: &Page, app: &TestApp) {
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    // 'self' alone makes Chromium refuse the redirect to the sign-in.
    assert!(policy.contains(&format!("form-action 'self' {}", app.emulator.browser_url())), "{policy}");
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("x-frame-options"), "DENY");
}

#[tokio::test]
async fn a38_every_page_is_uncacheable_unframeable_and_sends_no_referrer() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    let base = format!("http://localhost:{}", app.links.port());
    let fresh = app.operator().await.begin().await.unwrap();
    let mut browser = Browser::new();

    assert_guarded(&browser.get(&fresh.link_url).await, &app);
    assert_guarded(&browser.post(&fresh.link_url).await, &app);
    assert_guarded(&browser.post_from(&fresh.link_url, "cross-site").await, &app);
    assert_guarded(&link.come_back().await, &app);
    assert_guarded(&link.come_back().await, &app);
    for path in ["/", "/link/unknown", "/link/", "/complete/azure_active_directory", "/elsewhere"] {
        let page = browser.get(&format!("{base}{path}")).await;
        assert_eq!(page.status, 404, "{path}");
        assert_guarded(&page, &app);
    }
}

#[tokio::test]
async fn a33_the_redirect_is_303_and_the_cookie_is_bound_to_this_host() {
    let app = TestApp::start().await;
    let begun = app.operator().await.begin().await.unwrap();

    let page = Browser::new().post(&begun.link_url).await;

    assert_eq!(page.status, 303);
    let cookie = page.header("set-cookie");
    assert!(cookie.starts_with("__Host-"), "{cookie}");
    for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.split("; ").any(|one| one == attribute), "{attribute}");
    }
    assert!(!cookie.contains("Domain"));
}

/// T18, A23: Entra's text is somebody else's text.
#[tokio::test]
async fn a38_nothing_of_entras_error_text_is_shown() {
    let app = TestApp::start().await;
    let mut link = app.declined().await;
    let (address, query) = link.callback.split_once('?').unwrap();
    let canary = "%3Cscript%3Ecanary%3C%2Fscript%3E";
    let texts: Vec<_> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name @ ("error_description" | "error_uri" | "error_subcode"), _)) => {
                format!("{name}={canary}")
            }
            _ => pair.to_owned(),
        })
        .collect();
    link.callback = format!("{address}?{}", texts.join("&"));
    assert!(link.callback.contains("canary"));

    let page = link.come_back().await;

    assert!(page.body.contains("declined") && !page.body.contains("canary"), "{}", page.body);
    let seen = app.operator().await.link(&link.id).await.unwrap();
    assert!(!seen.message.contains("canary"));
    let audit = std::fs::read_to_string(app.files.path("audit.jsonl")).unwrap();
    assert!(!audit.contains("canary"));
}

#[tokio::test]
async fn a38_other_methods_and_endless_queries_are_refused_and_the_next_page_is_fine() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    let callback = link.callback.clone();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::TRACE, Method::OPTIONS] {
        let page = link.browser.with_method(method.clone(), &callback).await;
        assert!((400..500).contains(&page.status), "{method}: {}", page.status);
    }
    let long = format!("{callback}&more={}", "x".repeat(63 * 1024));
    assert!((400..500).contains(&link.browser.get(&long).await.status));
    assert!((400..500).contains(&link.browser.get(&format!("{callback}&state=other")).await.status));

    assert_eq!(app.exchanges().len(), 0);
    assert_eq!(link.come_back().await.status, 200);
}

/// HEAD is a GET without its body, and link scanners of mail programs send it.
#[tokio::test]
async fn a_head_of_the_callback_spends_no_code() {
    let app = TestApp::start().await;
    let mut link = app.signed_in("svc@contoso.com").await;
    let callback = link.callback.clone();

    link.browser.with_method(Method::HEAD, &callback).await;

    assert_eq!(app.exchanges().len(), 0);
    assert_eq!(link.come_back().await.status, 200);
}

#[tokio::test]
async fn a_page_shows_what_the_caller_says_as_text() {
    let app = TestApp::start().await;
    let request = azdo_broker::pb::BeginLinkRequest {
        actor: "<b>Ana</b>".into(),
        expected_login: "\"><script>".into(),
        ..begin_request()
    };
    let begun = app.operator().await.begin_with(request).await.unwrap();

    let page = Browser::new().get(&begun.link_url).await;

    assert!(page.body.contains("&lt;b&gt;Ana&lt;/b&gt;"), "{}", page.body);
    assert!(!page.body.contains("<b>Ana") && !page.body.contains("<script"), "{}", page.body);
}

#[tokio::test]
async fn the_style_sheet_is_served_as_one() {
    let app = TestApp::start().await;
    let url = format!("http://localhost:{}/link/style.css", app.links.port());
    let page = Browser::new().get(&url).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/css; charset=utf-8"));
}
