//! A headless Chromium and as much of `WebDriver` as a click-through needs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use crate::support::{PATIENCE, tool};

/// Ends with the test; its profile goes too.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    client: reqwest::Client,
    _profile: TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let (driver, port) = start_driver(profile.path()).await;
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let sessions = format!("http://127.0.0.1:{port}/session");
        let opened = send(client.post(&sessions).json(&capabilities(profile.path()))).await;
        let session = format!("{sessions}/{}", opened["sessionId"].as_str().unwrap());
        Self { driver, session, client, _profile: profile }
    }

    pub(crate) async fn go(&self, url: &str) {
        self.post("url", &json!({ "url": url })).await;
    }

    pub(crate) async fn url(&self) -> String {
        self.get("url").await.as_str().unwrap().to_owned()
    }

    pub(crate) async fn text(&self, css: &str) -> String {
        let element = self.element(css).await;
        self.get(&format!("element/{element}/text")).await.as_str().unwrap().to_owned()
    }

    pub(crate) async fn click(&self, css: &str) {
        let element = self.element(css).await;
        self.post(&format!("element/{element}/click"), &json!({})).await;
    }

    pub(crate) async fn cookies(&self) -> Vec<Value> {
        self.get("cookie").await.as_array().unwrap().clone()
    }

    /// What the browser's console holds: blocked forms, styles and redirects among it. That nobody
    /// has a picture for the tab is no complaint about a page.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({ "type": "browser" })).await;
        let told = entries.as_array().unwrap().iter().map(|entry| entry["message"].to_string());
        told.filter(|message| !message.contains("favicon.ico")).collect()
    }

    /// For people: in the target directory.
    pub(crate) async fn screenshot(&self, name: &str) {
        let picture = self.get("screenshot").await;
        let picture = STANDARD.decode(picture.as_str().unwrap()).unwrap();
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("link-page-{name}.png"));
        std::fs::write(file, picture).unwrap();
    }

    pub(crate) async fn end(mut self) {
        send(self.client.delete(&self.session)).await;
        self.driver.kill().await.unwrap();
    }

    async fn element(&self, css: &str) -> String {
        let found = self.post("element", &json!({ "using": "css selector", "value": css })).await;
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    async fn get(&self, path: &str) -> Value {
        send(self.client.get(format!("{}/{path}", self.session))).await
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        send(self.client.post(format!("{}/{path}", self.session)).json(body)).await
    }
}

/// The `value` of an answer that is no error.
async fn send(request: reqwest::RequestBuilder) -> Value {
    let mut answer: Value = request.send().await.unwrap().json().await.unwrap();
    let value = answer["value"].take();
    assert!(value["error"].is_null(), "the browser refused: {value:#}");
    value
}

async fn start_driver(home: &Path) -> (Child, u16) {
    let mut command = tool("chromedriver", home);
    command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut driver = command.spawn().unwrap_or_else(|error| panic!("{HINT}: {error}"));
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                return port.trim_end_matches('.').parse().unwrap();
            }
        }
        panic!("{HINT}: chromedriver does not start");
    };
    let port = tokio::time::timeout(Duration::from_secs(20), port).await.expect(HINT);
    (driver, port)
}

fn capabilities(profile: &Path) -> Value {
    let mut flags: Vec<_> = FLAGS.iter().map(ToString::to_string).collect();
    flags.push(format!("--user-data-dir={}", profile.display()));
    json!({ "capabilities": { "alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": { "args": flags },
        "goog:loggingPrefs": { "browser": "ALL" },
    }}})
}

const HINT: &str = "the click-through needs a browser: run `apt-get install chromium chromium-driver`";
/// As root and offline: nothing of the browser's own may call out.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=900,800",
];
