//! What needs configuration and files, but no running broker: `check`, `policy check`, `keys new`,
//! `store init`, `store copy`.

use std::path::Path;
use std::sync::Arc;

use crate::clock::SystemClock;
use crate::config::{Config, Places, Problems};
use crate::keys::{FileKey, KeyProvider, KeysError};
use crate::policy::{Policy, PolicyError};
use crate::seal::Keyring;
use crate::secret::make_random_text;
use crate::store::{Copied, CopyError, Store, StoreError, StorePlace, copy};
use crate::tls::{Tls, TlsError};

/// Why an offline command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("{0}")]
    Config(Problems),
    #[error("the key file cannot be used")]
    Keys(#[from] KeysError),
    #[error("{0}")]
    Policy(PolicyError),
    #[error("{path} cannot be read")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the store cannot be made")]
    Store(#[from] StoreError),
    #[error("the store cannot be moved")]
    Copy(#[from] CopyError),
    #[error("the TLS files cannot be used")]
    Tls(#[from] TlsError),
}

/// Checks the configuration, the policy beside it, and the files they name. Returns what was found.
pub fn check(config: &Path) -> Result<String, OfflineError> {
    let config = Config::read(config).map_err(OfflineError::Config)?;
    FileKey::open(&config.key_file)?;
    if let Some((_, files)) = &config.tcp {
        Tls::load(files.clone())?;
    }
    // A database is not asked: this is offline.
    if let StorePlace::File(path) = &config.store
        && !path.exists()
    {
        return Err(StoreError::NoStore(config.store.to_string()).into());
    }
    let listeners = config.sockets.len() + usize::from(config.tcp.is_some());
    Ok(format!("the configuration is good: {listeners} gRPC listeners, store {}", config.store))
}

/// Checks a policy file alone.
pub fn policy_check(path: &Path) -> Result<String, OfflineError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| OfflineError::Read { path: path.display().to_string(), source })?;
    let policy = Policy::from_toml(&text).map_err(OfflineError::Policy)?;
    Ok(format!("the policy is good: {} rules; what none of them allows is refused", policy.rules_count()))
}

/// Makes the key file that wraps the store's keyring.
pub fn keys_new(path: &Path) -> Result<String, OfflineError> {
    FileKey::create(path)?;
    Ok(format!("made the key file {}: keep it apart from backups of the store", path.display()))
}

/// Makes the store with its keyring. Never touches an existing one.
pub async fn store_init(config: &Path) -> Result<String, OfflineError> {
    let places = Places::read(config).map_err(OfflineError::Config)?;
    let keys = KeyProvider::File(FileKey::open(&places.key_file)?);
    let store_id = make_random_text().parse().expect("base64url is a name");
    let wrapped = keys.wrap(crate::ids::StoreId::as_str(&store_id), &Keyring::generate().to_bytes());
    Store::create(&places.store, &store_id, &wrapped).await?;
    Ok(format!("made the store {}", places.store))
}

/// Moves the store of one configuration to where another one says; tells now and then how far it is.
pub async fn store_copy(
    config: &Path,
    to: &Path,
    progress: &mut dyn FnMut(String),
) -> Result<String, OfflineError> {
    let from = Places::read(config).map_err(OfflineError::Config)?;
    let to = Places::read(to).map_err(OfflineError::Config)?;
    let mut told = 0;
    let mut tell = |copied: u64, all: u64| {
        if told + TELL_EVERY <= copied || copied == all {
            told = copied;
            progress(format!("{copied} of {all} rows"));
        }
    };
    let copied = copy(&from.store, &to.store, Arc::new(SystemClock::default()), &mut tell).await?;
    let Copied::Whole { count, is_resumed, left_out } = copied else {
        return Ok(format!(
            "{} was already moved to {}: serve that one, with the same key file",
            from.store, to.store
        ));
    };
    let resumed = if is_resumed { " (resumed)" } else { "" };
    if 0 < left_out {
        progress(format!("{left_out} rows name nothing and stay behind"));
    }
    Ok(format!(
        "moved {} connections, {} links and {} integrations from {} to {}{resumed}: serve that one, with the same key file",
        count.connections, count.links, count.integrations, from.store, to.store
    ))
}

const TELL_EVERY: u64 = 10_000;
