//! A folder with everything a broker needs, made by the programs that an operator would run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use azure_emulator::Emulator;
use tempfile::TempDir;
use tokio::process::Command;

use super::{ACCOUNT, AZDO_BROKER, Ran, run, tool};

/// Removed with all that is in it when dropped.
pub(crate) struct Home {
    folder: TempDir,
    /// The ports of the pages and of the probes: fixed, so that links survive a restart.
    pub(crate) links: u16,
    pub(crate) admin: u16,
}

impl Home {
    /// Configuration and policy alone: for what ends before anything is asked of Microsoft.
    pub(crate) fn new(emulator: Option<&Emulator>) -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap(), links: free_port(), admin: free_port() };
        home.write("policy.toml", POLICY);
        home.write(CONFIG, home.configuration(emulator));
        if let Some(emulator) = emulator {
            home.write("emulator-ca.pem", emulator.ca_pem());
        }
        home
    }

    /// With key and store, and found good.
    pub(crate) async fn with_store(emulator: Option<&Emulator>) -> Self {
        let home = Self::new(emulator);
        home.run(&["keys", "new", "azdo-broker.key"]).await.done();
        home.run(&["store", "init", "--config", CONFIG]).await.done();
        home.run(&["check", "--config", CONFIG]).await.done();
        home
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn address(&self, socket: &str) -> String {
        format!("unix:{}", self.path(&format!("{socket}.sock")).display())
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8(self.read("broker.log")).unwrap()
    }

    /// Rewrites the configuration; what is to be replaced must be in it.
    #[track_caller]
    pub(crate) fn configure(&self, old: &str, new: &str) {
        let text = String::from_utf8(self.read(CONFIG)).unwrap();
        assert!(text.contains(old), "{old} is not configured in:\n{text}");
        self.write(CONFIG, text.replace(old, new));
    }

    /// `azdo-broker` here, as the operator of the account.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = tool(AZDO_BROKER, self.folder());
        command.env("AZDO_BROKER_ADDRESS", self.address("operator")).env("AZDO_BROKER_ACCOUNT", ACCOUNT);
        command.args(args);
        command
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args)).await
    }

    /// `serve` where it must not come up.
    pub(crate) async fn serve_in_vain(&self) -> Ran {
        self.run(&["serve", "--config", CONFIG]).await
    }

    /// Changes the configuration for the next start.
    pub(crate) fn edit_config(&self, from: &str, to: &str) {
        let path = self.path(CONFIG);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }

    fn configuration(&self, emulator: Option<&Emulator>) -> String {
        let (links, admin) = (self.links, self.admin);
        let listen = format!("[listen]\nlinks = \"127.0.0.1:{links}\"\nadmin = \"127.0.0.1:{admin}\"\n");
        let emulated = emulator.map_or(String::new(), |emulator| {
            let (proxy, browser) = (emulator.proxy_url(), emulator.browser_url());
            format!(
                "[outgoing]\nproxy = \"{proxy}\"\nca_file = \"emulator-ca.pem\"\n\
                 [entra]\nbrowser_authority = \"{browser}\"\n"
            )
        });
        format!("{listen}{SOCKETS}{emulated}[audit]\npath = \"audit.jsonl\"\n")
    }
}

/// Below the ports that the kernel gives away, so that nobody gets it between two starts of a broker.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id() % 1_000).unwrap() * 10;
    loop {
        let port = 20_000 + (spread + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) const CONFIG: &str = "azdo-broker.toml";
const SOCKETS: &str = "[[listen.socket]]\nname = \"operator\"\npath = \"operator.sock\"\n\
    [[listen.socket]]\nname = \"job-runner\"\npath = \"job-runner.sock\"\n";
const POLICY: &str = r#"
[[rule]]
name = "operator"
callers = ["socket:operator"]
accounts = ["acme"]
allow = ["*"]

[[rule]]
name = "job runner"
callers = ["socket:job-runner"]
accounts = ["acme"]
allow = ["git", "report"]
"#;
