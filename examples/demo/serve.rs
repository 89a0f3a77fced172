//! `--serve`: keeps the world running, for people and tools that bring their own calls.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::time::sleep;

use crate::job::REPOSITORY;
use crate::narrator::{Narrator, say};
use crate::outcome::Outcome;
use crate::people::DEVELOPER;
use crate::processes::Processes;
use crate::story::{CLIENT, CLIENT_SECRET, SERVICE_USER, begin_link, find_url};
use crate::world::{ACCOUNT, World};

/// `env.sh`, taken away when the world ends, so that nobody calls one that is gone.
struct EnvironmentFile(PathBuf);

/// Prints what to try, writes `env.sh`, and returns only if something broke.
pub(crate) async fn keep_running(world: &World, narrator: &Narrator, processes: &Processes) -> Outcome<()> {
    narrator.begin("serve");
    // The secret that the emulator's README names opens for whoever tries things; the broker has its own.
    world.change(json!({ "change": "secret.add", "client_id": CLIENT, "value": CLIENT_SECRET })).await?;
    let mut linking = begin_link(world)?;
    let mut err = BufReader::new(linking.child().stderr.take().ok_or("no standard error")?);
    let url = find_url(&mut err).await?;
    say(&invitation(world, &url));
    let _file = EnvironmentFile::write(world)?;
    say(&format!("demo: serving; {} is written; Ctrl-C ends it", world.dir.join(FILE).display()));

    let linked = async {
        let (mut out, mut said, mut troubles) = (linking.child().stdout.take(), String::new(), String::new());
        if let Some(out) = &mut out {
            tokio::try_join!(out.read_to_string(&mut said), err.read_to_string(&mut troubles))?;
        }
        // An invitation that nobody takes up, or another link overtakes, is no failure of the demo.
        let outcome = if linking.child().wait().await?.success() { &said } else { &troubles };
        say(&format!("the link URL above is used up: {}", last_line(outcome)));
        std::future::pending::<Outcome<()>>().await
    };
    let died = async {
        loop {
            if let Some((name, status)) = processes.take_ended()? {
                return Err(format!("{name} ended with {status}").into());
            }
            sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        ended = linked => ended,
        ended = died => ended,
    }
}

fn invitation(world: &World, url: &str) -> String {
    let dir = world.dir.display();
    let bin = world.bin.display();
    let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let operator = world.socket("operator").display().to_string();
    let job_runner = world.socket("job-runner").display().to_string();
    let (proxy, ca) = (&world.emulator.proxy, world.emulator.ca.display());
    let tcp = world.ports.tcp;
    let body = format!(r#"'{{"account_id":"{ACCOUNT}"}}'"#);
    let method = "azdo.broker.v1.CredentialBroker";
    format!(
        r"
Link again in a browser; sign in as {SERVICE_USER}, the demo then confirms it (ten minutes):

  {url}

Our own command line:

  . '{dir}/env.sh'
  '{bin}/azdo-broker' connections
  '{bin}/azdo-broker' repos --compare
  '{bin}/azdo-broker' token --developer {DEVELOPER}
  '{bin}/azdo-broker' doctor

grpcurl over the operator's socket, and over mutual TLS as the IDE backend:

  grpcurl -plaintext -unix -authority localhost -d {body} '{operator}' {method}/GetServiceUserToken
  grpcurl -import-path '{protos}' -proto azdo/broker/v1/credential_broker.proto -cacert '{dir}/ca.pem' -cert '{dir}/ide-backend.pem' -key '{dir}/ide-backend.key' -d {body} localhost:{tcp} {method}/ListReadableRepos

git, as a job does it (proxy and sslCAInfo lead to the emulator instead of Azure):

  env -u GIT_SSL_CAINFO -u NO_PROXY -u no_proxy AZDO_BROKER_ADDRESS='unix:{job_runner}' AZDO_BROKER_ACCOUNT={ACCOUNT} git -c http.proxy={proxy} -c http.sslCAInfo='{ca}' -c credential.helper= -c credential.helper='{bin}/git-credential-azdo-broker' -c credential.useHttpPath=true clone {REPOSITORY}
"
    )
}

impl EnvironmentFile {
    /// Written last and by rename: whoever sees the file finds everything running.
    fn write(world: &World) -> Outcome<Self> {
        let lines = environment(world).map(|(name, value)| {
            let quoted = value.replace('\'', r"'\''");
            format!("export {name}='{quoted}'\n")
        });
        let path = world.dir.join(FILE);
        let unfinished = path.with_extension("sh.new");
        fs::write(&unfinished, lines.concat())?;
        fs::rename(unfinished, &path)?;
        Ok(Self(path))
    }
}

impl Drop for EnvironmentFile {
    fn drop(&mut self) {
        // If somebody else took it away, so much the better.
        let _ = fs::remove_file(&self.0);
    }
}

fn environment(world: &World) -> [(&'static str, String); 13] {
    let file = |name: &str| world.dir.join(name).display().to_string();
    let socket = |name: &str| world.socket(name).display().to_string();
    [
        ("AZDO_BROKER_SOCKET", socket("operator")),
        ("JOB_RUNNER_SOCKET", socket("job-runner")),
        ("AZDO_BROKER_TCP", format!("localhost:{}", world.ports.tcp)),
        ("AZDO_BROKER_CA", file("ca.pem")),
        ("IDE_BACKEND_CERT", file("ide-backend.pem")),
        ("IDE_BACKEND_KEY", file("ide-backend.key")),
        ("STRANGER_CERT", file("stranger.pem")),
        ("STRANGER_KEY", file("stranger.key")),
        ("AZURE_EMULATOR_PROXY", world.emulator.proxy.clone()),
        ("AZURE_EMULATOR_CONTROL", world.emulator.control.clone()),
        ("AZURE_EMULATOR_CA", world.emulator.ca.display().to_string()),
        ("AZDO_BROKER_ADDRESS", format!("unix:{}", socket("operator"))),
        ("AZDO_BROKER_ACCOUNT", ACCOUNT.to_owned()),
    ]
}

fn last_line(text: &str) -> &str {
    text.lines().next_back().unwrap_or_default()
}

const FILE: &str = "env.sh";
const LOOK_EVERY: Duration = Duration::from_millis(200);
