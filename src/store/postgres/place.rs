//! Where a database is, and how it is reached: parsed once, before anything connects.
//!
//! # Invariants
//!
//! 1. Off loopback every connection is TLS, and the server's name is verified: a URL that asks for less is
//!    refused, not obeyed.
//! 2. The password comes from a file of its own: a configuration shows none.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use super::lent::WAIT_MAX;

/// A database that may hold a store. Shows no password.
#[derive(Clone)]
pub struct PostgresPlace {
    pub(super) config: Config,
    pub(super) tls: Option<rustls::ClientConfig>,
    connections: NonZeroUsize,
    /// As messages show it: `postgresql://azdo_broker@db.example/broker`.
    pub(super) name: Arc<str>,
}

/// Why a URL is no such place.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPlace {
    #[error("is not a connection URL: postgresql://USER@HOST/DATABASE")]
    Url,
    #[error("names no {0}: postgresql://USER@HOST/DATABASE")]
    Missing(&'static str),
    #[error("holds a password: put it into the file that store.password_file names")]
    Password,
    #[error(
        "asks for no TLS, and {0} is not on this machine: leave sslmode out, or give the server a certificate"
    )]
    Plaintext(String),
}

impl PostgresPlace {
    /// Parses a URL; `tls` is how a server off this machine is verified.
    pub fn parse(
        url: &str,
        password: Option<&Zeroizing<Vec<u8>>>,
        tls: rustls::ClientConfig,
        connections: NonZeroUsize,
    ) -> Result<Self, InvalidPlace> {
        if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
            return Err(InvalidPlace::Url);
        }
        let mut config: Config = url.parse().map_err(|_| InvalidPlace::Url)?;
        if config.get_password().is_some() {
            return Err(InvalidPlace::Password);
        }
        let user = config.get_user().ok_or(InvalidPlace::Missing("user"))?.to_owned();
        let database = config.get_dbname().ok_or(InvalidPlace::Missing("database"))?.to_owned();
        let hosts = hosts(&config);
        if hosts.is_empty() {
            return Err(InvalidPlace::Missing("host"));
        }
        let remote = hosts.iter().find(|(_, is_local)| !is_local).map(|(name, _)| name.clone());
        let wants_tls = config.get_ssl_mode() == SslMode::Require;
        if let Some(remote) = &remote
            && config.get_ssl_mode() == SslMode::Disable
        {
            return Err(InvalidPlace::Plaintext(remote.clone()));
        }
        let is_tls = wants_tls || remote.is_some();
        config.ssl_mode(if is_tls { SslMode::Require } else { SslMode::Disable });
        if let Some(password) = password {
            config.password(password.as_slice());
        }
        config
            .application_name("azdo-broker")
            // Of several hosts the one that takes writes: after a failover that is another one.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(CONNECT_MAX)
            .tcp_user_timeout(SILENCE_MAX)
            .keepalives_idle(SILENCE_MAX);
        let names: Vec<String> = hosts.into_iter().map(|(name, _)| name).collect();
        let name = format!("postgresql://{user}@{}/{database}", names.join(",")).into();
        Ok(Self { config, tls: is_tls.then_some(tls), connections, name })
    }

    /// A pool of connections; makes none yet.
    pub(super) fn pool(&self) -> Pool {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &self.tls {
            Some(tls) => {
                Manager::from_config(self.config.clone(), MakeRustlsConnect::new(tls.clone()), recycling)
            }
            None => Manager::from_config(self.config.clone(), NoTls, recycling),
        };
        let set_up = Hook::async_fn(|client, _| {
            Box::pin(async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) })
        });
        Pool::builder(manager)
            .max_size(self.connections.get())
            .wait_timeout(Some(WAIT_MAX))
            .create_timeout(Some(WAIT_MAX))
            .recycle_timeout(Some(WAIT_MAX))
            .runtime(Runtime::Tokio1)
            .post_create(set_up)
            .build()
            .expect("a runtime is given, as timeouts need one")
    }
}

/// Each host's name, and whether it is on this machine.
fn hosts(config: &Config) -> Vec<(String, bool)> {
    let named = config.get_hosts().iter().map(|host| match host {
        Host::Unix(path) => (path.display().to_string(), true),
        Host::Tcp(name) => {
            let is_local =
                name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            (name.clone(), is_local)
        }
    });
    let addresses = config.get_hostaddrs().iter().map(|address| (address.to_string(), address.is_loopback()));
    named.chain(addresses).collect()
}

impl fmt::Display for PostgresPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for PostgresPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresPlace").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a session of ours never does: wait for a lock, or sit in a transaction, longer than its caller waits.
const SESSION: &str = "SET lock_timeout = '4s'; SET statement_timeout = '10s'; \
                       SET idle_in_transaction_session_timeout = '10s'";
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A peer that acknowledges nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresPlace, String> {
        let tls = crate::outgoing::client_tls(None).unwrap();
        PostgresPlace::parse(url, None, tls, NonZeroUsize::MIN).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn off_this_machine_there_is_no_connection_without_tls() {
        for url in [
            "postgresql://u@db.example/d",
            "postgresql://u@db.example/d?sslmode=prefer",
            "postgres://u@10.1.2.3/d?sslmode=require",
            "postgresql://u@localhost,db.example/d",
            "postgresql://u@localhost/d?sslmode=require",
        ] {
            let place = parse(url).unwrap();
            assert!(place.tls.is_some() && place.config.get_ssl_mode() == SslMode::Require, "{url}");
        }
        for url in [
            "postgresql://u@db.example/d?sslmode=disable",
            "postgresql://u@localhost,db.example/d?sslmode=disable",
        ] {
            let refusal = parse(url).unwrap_err();
            assert!(refusal.contains("db.example is not on this machine"), "{refusal}");
        }
        for url in ["postgresql://u@127.0.0.1/d", "postgresql://u@%2Fvar%2Frun/d", "postgresql://u@[::1]/d"] {
            assert!(parse(url).unwrap().tls.is_none(), "{url}");
        }
    }

    #[test]
    fn a_url_says_who_where_and_which_and_no_password() {
        assert!(parse("mysql://u@h/d").unwrap_err().contains("postgresql://USER@HOST/DATABASE"));
        assert!(parse("postgresql://h/d").unwrap_err().contains("user"));
        assert!(parse("postgresql://u@h").unwrap_err().contains("database"));
        assert!(parse("postgresql://u@/d").unwrap_err().contains("host"));
        let refusal = parse("postgresql://u:canary@h/d").unwrap_err();
        assert!(refusal.contains("password_file") && !refusal.contains("canary"), "{refusal}");
        assert_eq!(&*parse("postgresql://u@a:5433,b/d").unwrap().name, "postgresql://u@a,b/d");
    }
}
