//! One click-through in a real browser: pages, cookie and Content-Security-Policy as Chromium sees them.
//!
//! Driven over `WebDriver`, which is JSON over HTTP. Needs Debian's `chromium` and `chromium-driver`.

mod driver;

use azdo_broker::pb::LinkState;
use driver::Browser;

use crate::support::{Given, SERVICE_USER, until};

#[tokio::test]
async fn a_person_clicks_through_in_chromium_and_the_caller_confirms() {
    let given = Given::a_broker().await;
    let begun = given.begin_link().await;
    assert!(begun.link_url.starts_with("http://localhost:"), "{}", begun.link_url);
    let browser = Browser::start().await;

    browser.go(&begun.link_url).await;
    let first = browser.text("main").await;
    for words in ["Connect Azure DevOps", "dev.azure.com/contoso", "acme", "close it"] {
        assert!(first.contains(words), "{words} is not on the page: {first}");
    }
    browser.screenshot("1-begin").await;
    browser.click("button[type=submit]").await;

    let emulated = given.emulator.browser_url();
    let arrived = async || browser.url().await.starts_with(&emulated).then_some(());
    until("Microsoft's page, which a wrong policy would have blocked", arrived).await;
    browser.screenshot("2-sign-in").await;
    browser.click(&format!("input[value='{SERVICE_USER}']")).await;
    browser.click("button[value=accept]").await;

    let back = async || browser.url().await.contains("/complete/").then_some(());
    until("the way back", back).await;
    let last = browser.text("main").await;
    for words in ["Signed in", SERVICE_USER, "acme", "Nothing is connected yet", "confirm"] {
        assert!(last.contains(words), "{words} is not on the page: {last}");
    }
    browser.screenshot("3-signed-in").await;
    assert_the_cookie(&browser).await;
    assert_eq!(browser.complaints().await, [""; 0]);

    assert_eq!(given.get_link(&begun.link_id).await.state(), LinkState::Verified);
    given.confirm(&begun.link_id).await.unwrap();
    given.token().await.unwrap();
    // What is left in the history is worth nothing.
    browser.go(&browser.url().await).await;
    assert!(browser.text("main").await.contains("used already"));
    browser.screenshot("4-used").await;
    browser.end().await;
}

async fn assert_the_cookie(browser: &Browser) {
    let cookies = browser.cookies().await;
    let ours: Vec<_> = cookies.iter().filter(|cookie| cookie["name"] != "").collect();
    let [cookie] = &ours[..] else { panic!("one cookie was expected: {cookies:?}") };
    assert_eq!(cookie["name"], "__Host-azdo-broker-link");
    assert_eq!((&cookie["secure"], &cookie["httpOnly"]), (&true.into(), &true.into()), "{cookie}");
    assert_eq!((&cookie["path"], &cookie["sameSite"]), (&"/".into(), &"Lax".into()), "{cookie}");
}
