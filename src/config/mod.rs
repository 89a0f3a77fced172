//! From a file to typed settings, with every mistake reported at once (S29).
//!
//! Two layers: [`raw`] mirrors the file and holds the only defaults; [`Config`] holds what is known to
//! make sense. Relative paths are relative to the file. Secrets are paths, never values.

mod raw;
mod store;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use url::Url;

use crate::accounts::Sources;
use crate::audit::{AuditConfig, Sync};
use crate::budgets::TokenRates;
use crate::devops::DevopsConfig;
use crate::entra::{EntraConfig, Rotation};
use crate::ids::Label;
use crate::integrations::PublicUrls;
use crate::links::ReturnTargets;
use crate::outgoing::Limits;
use crate::policy::Policy;
use crate::store::StorePlace;
use crate::tls::TlsFiles;
use crate::tokens::RefreshConfig;

/// All settings of `serve`.
#[derive(Debug)]
pub struct Config {
    pub sockets: Vec<SocketConfig>,
    pub tcp: Option<(SocketAddr, TlsFiles)>,
    pub links: SocketAddr,
    pub admin: SocketAddr,
    pub store: StorePlace,
    /// How long it is kept who was disconnected.
    pub ended_kept: Duration,
    pub key_file: PathBuf,
    pub entra: EntraConfig,
    pub federated_sources: Sources,
    pub devops: DevopsConfig,
    pub public_urls: PublicUrls,
    pub return_targets: ReturnTargets,
    pub proxy: Option<Url>,
    pub ca_pem: Option<Vec<u8>>,
    pub refresh: RefreshConfig,
    pub token_rates: TokenRates,
    pub audit: AuditConfig,
    pub in_flight_max: usize,
    pub connection_age_max: Duration,
    pub policy: Policy,
}

/// One named Unix socket: its name is what policy calls its callers (design.md 6.11).
#[derive(Clone, Debug)]
pub struct SocketConfig {
    pub name: String,
    pub path: PathBuf,
    pub mode: u32,
}

/// Everything that is wrong, so that an operator mends it in one go.
#[derive(Debug, Default, Eq, PartialEq, thiserror::Error)]
pub struct Problems(Vec<String>);

/// Only what `store init` and `keys new` need.
#[derive(Debug)]
pub struct Places {
    pub store: StorePlace,
    pub key_file: PathBuf,
}

impl Config {
    /// Reads and checks the file, the policy and the CA it points at. Secret files are checked where they
    /// are opened.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let (sections, mut problems) = read_sections(path)?;
        let base = path.parent().unwrap_or(Path::new("."));
        let config = sections.into_config(base, &mut problems);
        match config {
            Some(config) if problems.0.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }
}

impl Places {
    /// Reads the two paths, and complains about the rest of the file as [`Config::read`] would.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let (sections, mut problems) = read_sections(path)?;
        let base = path.parent().unwrap_or(Path::new("."));
        let ca_pem = sections.outgoing.ca_pem(base, &mut problems);
        let store = sections.store.into_place(base, ca_pem.as_deref(), &mut problems);
        match store {
            Some(store) if problems.0.is_empty() => {
                Ok(Self { store, key_file: base.join(sections.keys.file) })
            }
            _ => Err(problems),
        }
    }
}

fn read_sections(path: &Path) -> Result<(raw::Sections, Problems), Problems> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problems(vec![format!("{}: cannot be read: {error}", path.display())]))?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| Problems(vec![format!("{}: {error}", path.display())]))?;
    let mut problems = Problems::default();
    let sections = raw::Sections::read(table, &mut problems);
    Ok((sections, problems))
}

impl raw::Sections {
    fn read(mut table: toml::Table, problems: &mut Problems) -> Self {
        let sections = Self {
            listen: problems.section(&mut table, "listen"),
            tls: table.contains_key("tls").then(|| problems.section(&mut table, "tls")),
            store: problems.section(&mut table, "store"),
            keys: problems.section(&mut table, "keys"),
            entra: problems.section(&mut table, "entra"),
            devops: problems.section(&mut table, "devops"),
            links: problems.section(&mut table, "links"),
            outgoing: problems.section(&mut table, "outgoing"),
            refresh: problems.section(&mut table, "refresh"),
            audit: problems.section(&mut table, "audit"),
            limits: problems.section(&mut table, "limits"),
            policy: problems.section(&mut table, "policy"),
        };
        for key in table.keys() {
            problems.add(key, "is not a known section");
        }
        sections
    }

    fn into_config(self, base: &Path, problems: &mut Problems) -> Option<Config> {
        let sockets = self.listen.sockets(base, problems);
        let tcp = self.tcp(base, problems);
        if sockets.is_empty() && self.listen.tcp.is_none() {
            problems.add("listen", "needs at least one [[listen.socket]] or tcp: nobody could call");
        }
        let links = problems.check("listen.links", self.listen.links.parse());
        let admin = problems.check("listen.admin", self.listen.admin.parse());
        let federated_sources = self.entra.federated_sources(base, problems);
        let entra = self.entra.into_config(problems);
        let devops = self.devops.into_config(problems);
        let (public_urls, return_targets) = self.links.into_config(problems);
        let proxy =
            self.outgoing.proxy.as_deref().and_then(|proxy| problems.check("outgoing.proxy", proxy.parse()));
        let ca_pem = self.outgoing.ca_pem(base, problems);
        let ended_kept = self.store.ended_kept(problems);
        let store = self.store.into_place(base, ca_pem.as_deref(), problems);
        let refresh = problems
            .check("refresh.tick", positive(self.refresh.tick))
            .map(|tick| RefreshConfig { concurrency: self.refresh.concurrency.get(), tick });
        let connection_age_max =
            problems.check("limits.connection_age", positive(self.limits.connection_age));
        let in_flight_max = self.limits.in_flight.get();
        if IN_FLIGHT_MAX < in_flight_max {
            problems.add("limits.in_flight", format!("is at most {IN_FLIGHT_MAX}"));
        }
        let policy = problems.read_policy(base, &self.policy.file);
        Some(Config {
            sockets,
            tcp,
            links: links?,
            admin: admin?,
            store: store?,
            ended_kept,
            key_file: base.join(&self.keys.file),
            entra: entra?,
            federated_sources,
            devops: devops?,
            public_urls,
            return_targets,
            proxy,
            ca_pem,
            refresh: refresh?,
            token_rates: TokenRates { overall: self.refresh.rate, per_tenant: self.refresh.rate_per_tenant },
            audit: AuditConfig { path: base.join(&self.audit.path), sync: self.audit.sync.into() },
            in_flight_max,
            connection_age_max: connection_age_max?,
            policy: policy?,
        })
    }

    /// A TCP listener without client certificates does not exist (design.md 4.5).
    fn tcp(&self, base: &Path, problems: &mut Problems) -> Option<(SocketAddr, TlsFiles)> {
        let address = problems.check("listen.tcp", self.listen.tcp.as_ref()?.parse())?;
        let Some(tls) = &self.tls else {
            problems.add(
                "listen.tcp",
                "needs [tls] with certificate, key and client_ca: callers are known by certificate",
            );
            return None;
        };
        let files = TlsFiles {
            certificate: base.join(&tls.certificate),
            key: base.join(&tls.key),
            client_ca: base.join(&tls.client_ca),
            crl: tls.crl.as_ref().map(|crl| base.join(crl)),
        };
        Some((address, files))
    }
}

impl raw::Listen {
    fn sockets(&self, base: &Path, problems: &mut Problems) -> Vec<SocketConfig> {
        let mut sockets: Vec<SocketConfig> = Vec::new();
        for (at, socket) in self.socket.iter().enumerate() {
            let place = format!("listen.socket[{at}]");
            if sockets.iter().any(|other| other.name == socket.name) {
                problems.add(&place, "has the name of another socket");
            }
            let named = !socket.name.is_empty()
                && socket.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if !named {
                problems.add(&format!("{place}.name"), "may hold only letters, digits and hyphens");
            }
            let mode = u32::from_str_radix(&socket.mode, 8).ok().filter(|mode| mode & !0o777 == 0);
            if mode.is_none() {
                problems.add(&format!("{place}.mode"), "is not a file mode such as \"0660\"");
            }
            sockets.push(SocketConfig {
                name: socket.name.clone(),
                path: base.join(&socket.path),
                mode: mode.unwrap_or_default(),
            });
        }
        sockets
    }
}

impl raw::Entra {
    /// The files themselves are read at each use, by when somebody may have written them.
    fn federated_sources(&self, base: &Path, problems: &mut Problems) -> Sources {
        let mut sources = Sources::default();
        for (at, source) in self.federated_source.iter().enumerate() {
            let place = format!("entra.federated_source[{at}]");
            if let Some(name) = problems.check(&format!("{place}.name"), source.name.parse())
                && !sources.add(name, base.join(&source.file))
            {
                problems.add(&place, "has the name of another source");
            }
        }
        sources
    }

    fn into_config(self, problems: &mut Problems) -> Option<EntraConfig> {
        let authority = problems.https("entra.authority", &self.authority);
        let browser_authority = match self.browser_authority {
            None => None,
            Some(text) => {
                let url: Option<Url> = problems.check("entra.browser_authority", text.parse());
                let loopback = |url: &Url| url.scheme() == "http" && url.host_str() == Some("localhost");
                if url.as_ref().is_some_and(|url| !loopback(url)) {
                    problems
                        .add("entra.browser_authority", "is for the emulator alone: http://localhost:PORT");
                }
                url
            }
        };
        let rotation = match self.rotation {
            raw::Rotation::Lenient => Rotation::Lenient,
            raw::Rotation::Strict => Rotation::Strict,
        };
        Some(EntraConfig { authority: authority?, browser_authority, rotation })
    }
}

impl raw::Outgoing {
    fn ca_pem(&self, base: &Path, problems: &mut Problems) -> Option<Vec<u8>> {
        let file = self.ca_file.as_ref()?;
        problems.read_file("outgoing.ca_file", base, file)
    }
}

impl raw::Devops {
    fn into_config(self, problems: &mut Problems) -> Option<DevopsConfig> {
        let base = problems.https("devops.base", &self.base);
        let deadline = problems.check("devops.list_timeout", positive(self.list_timeout))?;
        if LIST_TIMEOUT_MAX < deadline {
            problems.add("devops.list_timeout", format!("is at most {} s", LIST_TIMEOUT_MAX.as_secs()));
        }
        let body_bytes_max = self.list_max_mib.get().saturating_mul(1024 * 1024);
        Some(DevopsConfig { base: base?, list: Limits { deadline, body_bytes_max } })
    }
}

impl raw::Links {
    fn into_config(self, problems: &mut Problems) -> (PublicUrls, ReturnTargets) {
        let (mut urls, mut targets) = (PublicUrls::default(), ReturnTargets::default());
        for (at, url) in self.public_urls.iter().enumerate() {
            problems.check(&format!("links.public_urls[{at}]"), urls.add(url));
        }
        for (at, target) in self.return_target.into_iter().enumerate() {
            let place = format!("links.return_target[{at}]");
            if target.name.parse::<Label>().is_err() {
                problems.add(&format!("{place}.name"), "must be a printable name");
            }
            problems.check(&place, targets.add(target.name, &target.url));
        }
        (urls, targets)
    }
}

impl From<raw::AuditSync> for Sync {
    fn from(sync: raw::AuditSync) -> Self {
        match sync {
            raw::AuditSync::Disk => Self::Disk,
            raw::AuditSync::Kernel => Self::Kernel,
        }
    }
}

impl Problems {
    fn add(&mut self, place: &str, problem: impl fmt::Display) {
        self.0.push(format!("{place}: {problem}"));
    }

    fn check<T, E: fmt::Display>(&mut self, place: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|problem| self.add(place, problem)).ok()
    }

    /// Reads one section: unknown keys are all reported, a wrong type once.
    fn section<T: DeserializeOwned + Default>(&mut self, table: &mut toml::Table, name: &str) -> T {
        let value = table.remove(name).unwrap_or_else(|| toml::Value::Table(toml::Table::new()));
        let unknown =
            |path: serde_ignored::Path<'_>| self.0.push(format!("{name}.{path}: is not a known key"));
        let read = serde_ignored::deserialize(value, unknown);
        read.unwrap_or_else(|error: toml::de::Error| {
            self.add(name, error.message());
            T::default()
        })
    }

    fn https(&mut self, place: &str, text: &str) -> Option<Url> {
        let url: Url = self.check(place, text.parse())?;
        if url.scheme() != "https" {
            self.add(place, "must be https");
        }
        Some(url)
    }

    fn read_file(&mut self, place: &str, base: &Path, file: &Path) -> Option<Vec<u8>> {
        let path = base.join(file);
        self.check(place, std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display())))
    }

    fn read_policy(&mut self, base: &Path, file: &Path) -> Option<Policy> {
        let text = self.read_file("policy.file", base, file)?;
        let text = String::from_utf8(text).map_err(|_| "is not text");
        let text = self.check("policy.file", text)?;
        self.check("policy", Policy::from_toml(&text))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

fn positive(value: SignedDuration) -> Result<Duration, &'static str> {
    match Duration::try_from(value) {
        Ok(value) if Duration::ZERO < value => Ok(value),
        _ => Err("must be a positive time such as \"10m\""),
    }
}

/// Far more than one process can serve.
const IN_FLIGHT_MAX: usize = 1_000_000;
/// A call of `ListReadableRepos` ends after 90 s, and the token before it may take ten.
const LIST_TIMEOUT_MAX: Duration = Duration::from_secs(80);

#[cfg(test)]
mod tests;
