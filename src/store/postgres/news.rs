//! What other replicas changed: heard by `LISTEN`, on a connection of its own.
//!
//! # Invariants
//!
//! 1. Whatever may have been missed is told as [`News::Anything`]: while there is no line, and every
//!    [`COMPARE_EVERY`] even if all seems well; after each new line as [`News::StoreReturned`].
//! 2. A line that is dead is noticed within [`PING_EVERY`] and [`PING_MAX`], so that a replica that reaches
//!    the database learns of a disconnect within a second (design.md 6.3).

use std::time::Duration;

use futures_util::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::place::PostgresPlace;
use crate::connection::{ConnectionKey, Role};
use crate::ids::Generation;
use crate::store::rows::News;

/// Owned by who follows; dropping it closes the line.
pub(in crate::store) struct PostgresNews {
    place: PostgresPlace,
    line: Option<Line>,
    compare_at: Instant,
}

struct Line {
    client: Client,
    heard: mpsc::Receiver<News>,
    ping_at: Instant,
    /// Reads what arrives; ends with the line.
    _reader: JoinSet<()>,
}

impl PostgresNews {
    pub(super) fn new(place: PostgresPlace) -> Self {
        Self { place, line: None, compare_at: Instant::now() }
    }

    /// Waits for the next piece of news, however long the database is away.
    pub(in crate::store) async fn next(&mut self) -> News {
        loop {
            let Some(line) = &mut self.line else {
                return self.call().await;
            };
            tokio::select! {
                biased;
                heard = line.heard.recv() => match heard {
                    Some(news) => return news,
                    None => self.line = None,
                },
                () = tokio::time::sleep_until(self.compare_at) => {
                    self.compare_at = Instant::now() + COMPARE_EVERY;
                    return News::Anything;
                }
                () = tokio::time::sleep_until(line.ping_at) => {
                    line.ping_at = Instant::now() + PING_EVERY;
                    if !matches!(timeout(PING_MAX, line.client.simple_query("")).await, Ok(Ok(_))) {
                        self.line = None;
                    }
                }
            }
        }
    }

    /// Makes a new line, or waits a little: either way the pool may reach the database meanwhile.
    async fn call(&mut self) -> News {
        match timeout(CALL_MAX, Line::to(&self.place)).await {
            Ok(Ok(line)) => {
                self.line = Some(line);
                self.compare_at = Instant::now() + COMPARE_EVERY;
                return News::StoreReturned;
            }
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot listen for changes");
                tokio::time::sleep(CALL_AGAIN).await;
            }
            Err(_) => tracing::warn!("cannot listen for changes: the database does not answer"),
        }
        self.compare_at = Instant::now() + COMPARE_EVERY;
        News::Anything
    }
}

impl Line {
    async fn to(place: &PostgresPlace) -> Result<Self, tokio_postgres::Error> {
        let (tell, heard) = mpsc::channel(UNREAD_MAX);
        let mut reader = JoinSet::new();
        let client = if let Some(tls) = &place.tls {
            let (client, connection) = place.config.connect(MakeRustlsConnect::new(tls.clone())).await?;
            reader.spawn(read(connection, tell));
            client
        } else {
            let (client, connection) = place.config.connect(NoTls).await?;
            reader.spawn(read(connection, tell));
            client
        };
        client.batch_execute("LISTEN azdo_broker").await?;
        Ok(Self { client, heard, ping_at: Instant::now() + PING_EVERY, _reader: reader })
    }
}

async fn read<S, T>(mut connection: Connection<S, T>, tell: mpsc::Sender<News>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        let AsyncMessage::Notification(notification) = message else { continue };
        // One that cannot be told ends the line: a new one begins by comparing everything.
        if let Some(news) = parse(notification.payload())
            && tell.try_send(news).is_err()
        {
            break;
        }
    }
}

/// `account` for an integration, `account/role generation` for a connection. Anybody may notify anything.
fn parse(payload: &str) -> Option<News> {
    let Some((account, rest)) = payload.split_once('/') else {
        return Some(News::Integration(payload.parse().ok()?));
    };
    let (role, generation) = rest.split_once(' ')?;
    let key = ConnectionKey { account: account.parse().ok()?, role: Role::parse(role)? };
    Some(News::Connection(key, Generation(generation.parse().ok()?)))
}

/// All that is held is compared this often, in case a notification was lost without a trace.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_millis(400);
const PING_MAX: Duration = Duration::from_millis(400);
const CALL_MAX: Duration = Duration::from_secs(2);
const CALL_AGAIN: Duration = Duration::from_millis(250);
/// Beyond this it is cheaper to compare everything.
const UNREAD_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_of_somebody_else_is_passed_over() {
        assert!(matches!(parse("acme"), Some(News::Integration(account)) if account.as_str() == "acme"));
        let key = |payload| match parse(payload) {
            Some(News::Connection(key, generation)) => format!("{key} at {}", generation.0),
            _ => String::new(),
        };
        assert_eq!(key("acme/service_user 7"), "acme/service_user at 7");
        assert_eq!(key("acme/developer/ana 8"), "acme/developer/ana at 8");
        for odd in [
            "",
            "/",
            "acme/",
            "acme/admin 1",
            "a b",
            "acme/developer/ 1",
            "acme/service_user",
            "acme/service_user x",
        ] {
            assert!(parse(odd).is_none(), "{odd}");
        }
    }
}
