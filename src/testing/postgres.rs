//! A PostgreSQL server of one test: on a Unix socket in a folder of its own, gone with the test.
//!
//! Needs Debian's `postgresql` (any version under `/usr/lib/postgresql`) and util-linux's `setpriv`; started
//! by root it runs as nobody, because the server refuses root. A test that cannot have it fails.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::outgoing::client_tls;
use crate::store::{PostgresPlace, StorePlace};

/// Stopped, without ceremony, when dropped.
pub struct TestPostgres {
    folder: tempfile::TempDir,
    server: Child,
    databases: AtomicUsize,
}

impl TestPostgres {
    /// Makes a cluster and starts its server.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings as on the server's command line: `name=value`.
    pub fn start_with(settings: &[String]) -> Self {
        Self::start_in(make_folder(), settings)
    }

    /// The same at this loopback address too, by TLS with this certificate and its key, as PEM.
    pub fn start_tls(address: IpAddr, certificate: &str, key: &str) -> Self {
        let folder = make_folder();
        let mut settings = vec!["ssl=on".to_owned(), format!("listen_addresses={address}")];
        for (setting, text) in [("ssl_cert_file", certificate), ("ssl_key_file", key)] {
            let path = folder.path().join(setting);
            std::fs::write(&path, text).expect("the folder is ours");
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("the file is ours");
            give_to_nobody(&path);
            settings.push(format!("{setting}={}", path.display()));
        }
        Self::start_in(folder, &settings)
    }

    fn start_in(folder: tempfile::TempDir, settings: &[String]) -> Self {
        let data = folder.path().join("data");
        let made = run_as_nobody(&program("initdb"))
            .args(["--no-sync", "--auth", "trust", "--username", USER, "--encoding", "UTF8", "--locale", "C"])
            .arg("--pgdata")
            .arg(&data)
            .output()
            .expect("setpriv and initdb can be run");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut server = run_as_nobody(&program("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-c", "listen_addresses=", "-c", "max_connections=200"])
            // In the folder, which goes with the test: a killed server removes nothing of what it shares.
            .args(["-c", "dynamic_shared_memory_type=mmap"])
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server can be run");
        wait_until_ready(&mut server);
        Self { folder, server, databases: AtomicUsize::new(0) }
    }

    /// A new, empty database.
    pub async fn database(&self) -> StorePlace {
        StorePlace::Postgres(Box::new(self.place(&self.database_url().await)))
    }

    /// The URL of a new, empty database.
    pub async fn database_url(&self) -> String {
        let name = format!("broker{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute("postgres", &format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    pub fn url(&self, database: &str) -> String {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgresql://{USER}@{socket}/{database}")
    }

    pub fn place(&self, url: &str) -> PostgresPlace {
        let tls = client_tls(None).expect("the bundled roots are good");
        PostgresPlace::parse(url, None, tls, NonZeroUsize::new(8).expect("is not zero")).expect("a good URL")
    }

    /// Runs statements as the owner of everything.
    pub async fn execute(&self, database: &str, sql: &str) {
        let (client, connection) = tokio_postgres::connect(&self.url(database), tokio_postgres::NoTls)
            .await
            .expect("the server runs");
        let work = async {
            client.batch_execute(sql).await.expect("the statements are good");
            drop(client);
        };
        let ((), _ended) = tokio::join!(work, connection);
    }

    /// Everything a database holds, as statements that would make it again.
    pub fn dump(&self, database: &str) -> String {
        let dumped = run_as_nobody(&program("pg_dump"))
            .args(["--inserts", "--dbname", &self.url(database)])
            .output()
            .expect("pg_dump can be run");
        assert!(dumped.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dumped.stderr));
        let text = String::from_utf8_lossy(&dumped.stdout);
        // Its lines for psql are random.
        text.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n")
    }

    /// The first column of what a statement answers, as text.
    pub async fn ask(&self, database: &str, sql: &str) -> Vec<String> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), tokio_postgres::NoTls)
            .await
            .expect("the server runs");
        let work = async {
            let answer = client.simple_query(sql).await.expect("the statement is good");
            drop(client);
            answer
        };
        let (answer, _ended) = tokio::join!(work, connection);
        let first = |message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
            _ => None,
        };
        answer.into_iter().filter_map(first).collect()
    }

    /// Lets the server stand still (`STOP`) or go on (`CONT`), all its processes.
    pub fn signal(&self, signal: &str) {
        let pid = self.server.id().to_string();
        let children = Command::new("pgrep").args(["-P", &pid]).output().expect("pgrep can be run");
        let children = String::from_utf8_lossy(&children.stdout);
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .args(children.split_whitespace())
            .arg(&pid)
            .status()
            .expect("kill can be run");
        assert!(sent.success(), "the server is gone");
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        // Its children end when they see it gone.
        let _gone = self.server.kill();
        let _status = self.server.wait();
    }
}

fn wait_until_ready(server: &mut Child) {
    let log = BufReader::new(server.stderr.take().expect("is piped"));
    let mut seen = String::new();
    let mut lines = log.lines().map_while(Result::ok);
    for line in &mut lines {
        if line.ends_with("ready to accept connections") {
            // A full pipe would stop the server.
            std::thread::spawn(move || lines.for_each(drop));
            return;
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    panic!("PostgreSQL did not start:\n{seen}");
}

fn make_folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("azdo-broker-postgres").tempdir().expect("a folder");
    give_to_nobody(folder.path());
    folder
}

fn give_to_nobody(path: &Path) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("it is ours");
    }
}

/// Ends with the thread that starts it, so that a test that is killed leaves nothing behind.
fn run_as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn program(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
        .unwrap_or_default();
    versions.sort();
    let found =
        versions.into_iter().rev().map(|version| version.join("bin").join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing; on Debian: apt-get install postgresql"))
}

const USER: &str = "azdo_broker";
const NOBODY: u32 = 65534;
