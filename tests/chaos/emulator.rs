//! The emulator as a process of its own: Entra and Azure DevOps, its switches and its record.

use std::path::{Path, PathBuf};
use std::time::Duration;

use azure_emulator::World;
use jiff::Timestamp;
use reqwest::{Client, Proxy, redirect};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::outcome::{Context as _, Outcome, ensure};
use crate::processes::{Process, until};

pub(crate) const TENANT: &str = "10000000-0000-4000-a000-000000000001";
pub(crate) const CLIENT: &str = "ac3e0000-0000-4000-a000-000000000001";
pub(crate) const SECRET: &str = "emu8Q~acme-secret.value+one/x=";

pub(crate) struct Emulator {
    _process: Process,
    pub(crate) proxy: String,
    pub(crate) browser: String,
    pub(crate) ca: PathBuf,
    control: String,
    http: Client,
    devices: Client,
}

/// One token request, as the emulator's record has it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TokenRequest {
    pub(crate) n: usize,
    pub(crate) time: Timestamp,
    pub(crate) grant_type: String,
    pub(crate) outcome: Result<(), u32>,
    pub(crate) user_oid: Option<String>,
    pub(crate) user_upn: Option<String>,
    pub(crate) rt_used: Option<String>,
    pub(crate) rt_issued: Option<String>,
    pub(crate) at_issued: Option<String>,
    pub(crate) expires_in: Option<u64>,
}

/// What the emulator wrote down.
pub(crate) struct Record {
    /// Those that it evaluated.
    pub(crate) issued: Vec<TokenRequest>,
    /// When each token request arrived, evaluated or not.
    pub(crate) arrived: Vec<Timestamp>,
    /// How many of them were answered with 429.
    pub(crate) refused: usize,
}

#[derive(Deserialize)]
struct Requests {
    requests: Vec<Recorded>,
}

#[derive(Deserialize)]
struct Recorded {
    time: Timestamp,
    status: Option<u16>,
    grant_type: Option<String>,
    token: Option<TokenRequest>,
}

impl Emulator {
    /// With users `u0@contoso.com` and so on, members of the organization.
    pub(crate) async fn start(bin: &Path, dir: &Path, users: usize) -> Outcome<Self> {
        std::fs::create_dir_all(dir)?;
        let mut world = World::example();
        for n in 0..users {
            world.users.push(serde_json::from_value(json!({
                "oid": oid(n), "tenant": "contoso.com", "upn": upn(n), "email": upn(n), "name": format!("User {n}"),
            }))?);
            world.organizations[0].members.push(serde_json::from_value(json!({ "user": upn(n) }))?);
        }
        let file = dir.join("world.toml");
        std::fs::write(&file, toml::to_string(&world)?)?;
        let ready = dir.join("ready.env");
        let args = ["serve".into(), "--world".into(), file.into_os_string()];
        let args = [&args[..], &["--data-dir".into(), dir.join("data").into_os_string()]].concat();
        let args = [&args[..], &["--ready-file".into(), ready.clone().into_os_string()]].concat();
        let mut process = Process::start(&bin.join("azure-emulator"), &args, &dir.join("emulator.log"))?;
        let env = until("the emulator", START_WITHIN, async || std::fs::read_to_string(&ready).ok()).await?;
        process.ensure_runs()?;
        let place = |name: &str| {
            let line = env.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim_matches('\'').to_owned()).ok_or(format!("{name} is not told"))
        };
        let (proxy, ca) = (place("AZURE_EMULATOR_PROXY")?, PathBuf::from(place("AZURE_EMULATOR_CA")?));
        let builder = || Client::builder().redirect(redirect::Policy::none()).timeout(ANSWER_WITHIN);
        let trusted = reqwest::Certificate::from_pem(&std::fs::read(&ca)?)?;
        Ok(Self {
            _process: process,
            browser: place("AZURE_EMULATOR_BROWSER")?,
            control: place("AZURE_EMULATOR_CONTROL")?,
            http: builder().no_proxy().tls_certs_only([]).build()?,
            devices: builder().proxy(Proxy::all(&proxy)?).tls_certs_only([trusted]).build()?,
            proxy,
            ca,
        })
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Outcome<Value> {
        let answer = request.send().await?;
        let (status, body) = (answer.status(), answer.text().await?);
        ensure(status.is_success(), || format!("the emulator says {status}: {body}"))?;
        Ok(serde_json::from_str(&body)?)
    }

    /// Turns a switch on.
    pub(crate) async fn switch(&self, fault: Value) -> Outcome<()> {
        let request = self.http.post(format!("{}/_emu/faults", self.control)).json(&fault);
        self.ask(request).await.context(fault).map(drop)
    }

    /// Turns all switches off, and lets go what is held; then the usual ones on.
    pub(crate) async fn clear(&self, usual: &[Value]) -> Outcome<()> {
        self.ask(self.http.delete(format!("{}/_emu/faults", self.control))).await?;
        if usual.is_empty() { Ok(()) } else { self.switch(json!(usual)).await }
    }

    pub(crate) async fn release(&self) -> Outcome<()> {
        self.ask(self.http.post(format!("{}/_emu/release", self.control))).await.map(drop)
    }

    /// Waits until so many requests are held.
    pub(crate) async fn wait_held(&self, n: u64, within: Duration) -> Outcome<()> {
        let held = async || (n <= self.held().await.ok()?).then_some(());
        until("held requests", within, held).await
    }

    /// Waits until no request is held: whoever sent them is gone.
    pub(crate) async fn wait_none_held(&self, within: Duration) -> Outcome<()> {
        let none = async || (self.held().await.ok()? == 0).then_some(());
        until("the last held request to be given up", within, none).await
    }

    pub(crate) async fn held(&self) -> Outcome<u64> {
        let told = self.ask(self.http.get(format!("{}/_emu/held", self.control))).await?;
        Ok(told["held"].as_u64().ok_or("it is not told how many are held")?)
    }

    pub(crate) async fn record(&self) -> Outcome<Record> {
        let answer = self.http.get(format!("{}/_emu/requests", self.control)).send().await?;
        let mut all = serde_json::from_slice::<Requests>(&answer.bytes().await?)?.requests;
        all.retain(|it| it.grant_type.is_some());
        let refused = all.iter().filter(|it| it.status == Some(429)).count();
        let arrived = all.iter().map(|it| it.time).collect();
        let issued = all.into_iter().filter_map(|it| it.token).collect();
        Ok(Record { issued, arrived, refused })
    }

    /// The callback of somebody who signed in: its code and the rest.
    pub(crate) async fn sign_in(&self, authorize_url: &str, upn: &str) -> Outcome<Url> {
        let body = json!({ "authorize_url": authorize_url, "user": upn });
        let answer = self.ask(self.http.post(format!("{}/_emu/sign-in", self.control)).json(&body)).await?;
        Ok(answer["location"].as_str().ok_or("no location")?.parse()?)
    }

    /// A refresh token of a user, as another system would hold it that signed them in.
    pub(crate) async fn grant(&self, upn: &str) -> Outcome<String> {
        let authority = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0");
        let asked = [
            ("client_id", CLIENT),
            ("response_type", "code"),
            ("redirect_uri", CALLBACK),
            ("scope", SCOPE),
            ("state", "s"),
            ("nonce", "n"),
        ];
        let url = Url::parse_with_params(&format!("{authority}/authorize"), asked)?;
        let callback = self.sign_in(url.as_str(), upn).await?;
        let code = parameter(&callback, "code")?;
        let form = [
            ("client_id", CLIENT),
            ("client_secret", SECRET),
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", CALLBACK),
            ("scope", SCOPE),
        ];
        let answer = self.ask(self.devices.post(format!("{authority}/token")).form(&form)).await?;
        Ok(answer["refresh_token"].as_str().ok_or("no refresh token")?.to_owned())
    }
}

pub(crate) fn parameter(url: &Url, name: &str) -> Outcome<String> {
    let value = url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    value.ok_or_else(|| format!("no {name} in the callback").into())
}

pub(crate) fn upn(n: usize) -> String {
    format!("u{n}@contoso.com")
}

pub(crate) fn oid(n: usize) -> String {
    format!("dddd0000-0000-4000-a000-{n:012}")
}

const CALLBACK: &str = "http://localhost:9/complete/azure_active_directory";
const SCOPE: &str =
    "499b84ac-1321-427f-aa17-267ca6975798/user_impersonation offline_access openid profile email";
const START_WITHIN: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
