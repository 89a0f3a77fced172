//! The file as it is written. Defaults live here and nowhere else.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use jiff::SignedDuration;
use serde::Deserialize;

/// Read one by one, so that a mistake in one section does not hide those in another.
#[derive(Debug)]
pub(super) struct Sections {
    pub(super) listen: Listen,
    pub(super) tls: Option<Tls>,
    pub(super) store: Store,
    pub(super) keys: Keys,
    pub(super) entra: Entra,
    pub(super) devops: Devops,
    pub(super) links: Links,
    pub(super) outgoing: Outgoing,
    pub(super) refresh: Refresh,
    pub(super) audit: Audit,
    pub(super) limits: Limits,
    pub(super) policy: Policy,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Listen {
    pub(super) socket: Vec<Socket>,
    pub(super) tcp: Option<String>,
    pub(super) links: String,
    pub(super) admin: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Socket {
    pub(super) name: String,
    pub(super) path: PathBuf,
    #[serde(default = "socket_mode")]
    pub(super) mode: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Tls {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: PathBuf,
    pub(super) crl: Option<PathBuf>,
}

/// A file, or a database: never both.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Store {
    pub(super) path: Option<PathBuf>,
    pub(super) url: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) connections: NonZeroUsize,
    pub(super) ended_kept_days: u32,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Keys {
    pub(super) file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Entra {
    pub(super) authority: String,
    pub(super) browser_authority: Option<String>,
    pub(super) federated_source: Vec<FederatedSource>,
    pub(super) rotation: Rotation,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Rotation {
    #[default]
    Lenient,
    Strict,
}

#[derive(Debug, Deserialize)]
pub(super) struct FederatedSource {
    pub(super) name: String,
    pub(super) file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Devops {
    pub(super) base: String,
    pub(super) list_timeout: SignedDuration,
    pub(super) list_max_mib: NonZeroUsize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Links {
    pub(super) public_urls: Vec<String>,
    pub(super) return_target: Vec<ReturnTarget>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ReturnTarget {
    pub(super) name: String,
    pub(super) url: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Outgoing {
    pub(super) proxy: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Refresh {
    pub(super) concurrency: NonZeroUsize,
    pub(super) tick: SignedDuration,
    pub(super) rate: NonZeroU32,
    pub(super) rate_per_tenant: NonZeroU32,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Audit {
    pub(super) path: PathBuf,
    pub(super) sync: AuditSync,
}

/// `disk` survives power loss, `kernel` survives `kill -9` (design.md 6.16).
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AuditSync {
    #[default]
    Disk,
    Kernel,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    pub(super) in_flight: NonZeroUsize,
    pub(super) connection_age: SignedDuration,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Policy {
    pub(super) file: PathBuf,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            socket: Vec::new(),
            tcp: None,
            links: "127.0.0.1:8080".to_owned(),
            admin: "127.0.0.1:9464".to_owned(),
        }
    }
}

pub(super) const STORE_PATH: &str = "azdo-broker.db";

impl Default for Store {
    fn default() -> Self {
        Self {
            path: None,
            url: None,
            password_file: None,
            ca_file: None,
            connections: NonZeroUsize::new(16).expect("is not zero"),
            ended_kept_days: 30,
        }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self { file: "azdo-broker.key".into() }
    }
}

impl Default for Entra {
    fn default() -> Self {
        Self {
            authority: "https://login.microsoftonline.com".to_owned(),
            browser_authority: None,
            federated_source: Vec::new(),
            rotation: Rotation::default(),
        }
    }
}

impl Default for Devops {
    fn default() -> Self {
        Self {
            base: "https://dev.azure.com".to_owned(),
            list_timeout: SignedDuration::from_secs(75),
            list_max_mib: NonZeroUsize::new(256).expect("is not zero"),
        }
    }
}

impl Default for Refresh {
    fn default() -> Self {
        Self {
            concurrency: NonZeroUsize::new(32).expect("is not zero"),
            tick: SignedDuration::from_secs(2),
            rate: NonZeroU32::new(50).expect("is not zero"),
            rate_per_tenant: NonZeroU32::new(20).expect("is not zero"),
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { path: "audit.jsonl".into(), sync: AuditSync::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: NonZeroUsize::new(2048).expect("is not zero"),
            connection_age: SignedDuration::from_mins(10),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { file: "policy.toml".into() }
    }
}

fn socket_mode() -> String {
    "0660".to_owned()
}
