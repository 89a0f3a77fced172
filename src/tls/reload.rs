//! The snapshot in force, and the task that replaces it when the files change.
//!
//! Files are polled, because notifications miss symlink swaps and network mounts. A change is taken up when
//! two looks in a row saw the same bytes, so that a writer in the middle of its work is waited for.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::snapshot::{Contents, ContentsDigest, TlsError, TlsFiles, TlsSnapshot};

/// The TLS configuration in force, cheap to clone. Connections take it when they are accepted.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ArcSwap<TlsSnapshot>>);

/// Keeps [`Tls`] equal to its files.
#[derive(Debug)]
pub struct TlsReloader {
    tls: Tls,
    files: Arc<TlsFiles>,
    in_force: ContentsDigest,
    /// What the last look saw, where that is neither in force nor refused already.
    seen: Option<ContentsDigest>,
    /// What was refused and logged: it is not tried again until it changes.
    refused: Option<ContentsDigest>,
    is_unreadable: bool,
}

impl Tls {
    /// Loads the files; the reloader must then be run.
    pub fn load(files: TlsFiles) -> Result<(Self, TlsReloader), TlsError> {
        let contents = Contents::read(&files)?;
        let snapshot = TlsSnapshot::build(&files, &contents)?;
        let tls = Self(Arc::new(ArcSwap::from_pointee(snapshot)));
        let reloader = TlsReloader {
            tls: tls.clone(),
            files: Arc::new(files),
            in_force: contents.digest(),
            seen: None,
            refused: None,
            is_unreadable: false,
        };
        Ok((tls, reloader))
    }

    /// Until when our own certificate is valid; for a metric and an alarm.
    pub fn expires_at(&self) -> Timestamp {
        self.0.load().expires_at()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.0.load().config().clone()
    }
}

impl TlsReloader {
    /// Looks at the files until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => self.look().await,
            }
        }
    }

    /// Takes up the files as they are, or tells why not; the last good ones then stay in force.
    pub async fn reload_now(&mut self) -> Result<(), TlsError> {
        let contents = self.read().await?;
        self.take_up(&contents)
    }

    /// One look: takes up what changed and then stood still, and logs once what cannot be taken up.
    async fn look(&mut self) {
        let contents = match self.read().await {
            Ok(contents) => contents,
            Err(error) => return self.log_unreadable(&error),
        };
        self.is_unreadable = false;
        let digest = contents.digest();
        if digest == self.in_force {
            (self.seen, self.refused) = (None, None);
        } else if self.seen != Some(digest) {
            self.seen = Some(digest);
        } else if self.refused != Some(digest) {
            match self.take_up(&contents) {
                Ok(()) => tracing::info!(expires_at = %self.tls.expires_at(), "took up new TLS files"),
                Err(error) => {
                    self.refused = Some(digest);
                    log_refused(&error);
                }
            }
        }
    }

    async fn read(&self) -> Result<Contents, TlsError> {
        let files = self.files.clone();
        match tokio::task::spawn_blocking(move || Contents::read(&files)).await {
            Ok(read) => read,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        }
    }

    fn take_up(&mut self, contents: &Contents) -> Result<(), TlsError> {
        let snapshot = TlsSnapshot::build(&self.files, contents)?;
        self.tls.0.store(Arc::new(snapshot));
        (self.in_force, self.seen, self.refused) = (contents.digest(), None, None);
        Ok(())
    }

    fn log_unreadable(&mut self, error: &TlsError) {
        if !self.is_unreadable {
            self.is_unreadable = true;
            log_refused(error);
        }
    }
}

fn log_refused(error: &TlsError) {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!(error = %error, cause, "kept the old TLS files, because the new ones cannot be used");
}

/// Two looks make a change: a revoked caller is refused within 5 s (A10).
const LOOK_EVERY: Duration = Duration::from_secs(2);
