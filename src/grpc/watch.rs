//! `WatchConnections`: a stream that ends by a status, whatever ends it.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream;
use tokio::time::{Instant, timeout_at};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{CHANGE_DEADLINE, Face, asking, encode, parse, status};
use crate::connection::Change;
use crate::links::{Told, Watching, What, shutting_down};
use crate::pb;

pub(super) type WatchStream =
    Pin<Box<dyn Stream<Item = Result<pb::WatchConnectionsResponse, Status>> + Send>>;

impl Face {
    pub(super) async fn watch(
        &self,
        request: Request<pb::WatchConnectionsRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let asked = request.get_ref();
        let asking = asking("WatchConnections", &request, "", "")?;
        // The call is over when the stream begins: one that only waits is no call in flight, and has a limit of
        // its own.
        let begun = self.call(CHANGE_DEADLINE, async {
            let account = Some(&asked.account_id).filter(|id| !id.is_empty());
            let account = account.map(|id| parse::account(id)).transpose()?;
            let cursor = parse::optional("cursor", &asked.cursor, CURSOR_LEN_MAX)?;
            self.links.watch(asking, account, cursor, self.admission.draining.clone()).await
        });
        let watching = begun.await?.into_inner();
        Ok(Response::new(until(watching, self.watch_age_max)))
    }
}

/// A watch must not keep a connection open beyond its age: the certificate may have been revoked (threat T20).
fn until(watching: Watching, age_max: Duration) -> WatchStream {
    let ends_at = Instant::now() + age_max;
    Box::pin(stream::unfold(Some(watching), move |watching| async move {
        let mut watching = watching?;
        match timeout_at(ends_at, watching.next()).await.unwrap_or_else(|_| Err(shutting_down())) {
            Ok(told) => Some((Ok(response(told)), Some(watching))),
            Err(refused) => Some((Err(status::of(&refused)), None)),
        }
    }))
}

fn response(told: Told) -> pb::WatchConnectionsResponse {
    let (kind, view) = match told.what {
        What::Present(view) => (pb::ConnectionEventKind::Present, Some(view)),
        What::Synced => (pb::ConnectionEventKind::Synced, None),
        What::Changed(change, view) => (kind(change), Some(view)),
    };
    pb::WatchConnectionsResponse {
        kind: kind.into(),
        connection: view.as_ref().map(encode::connection),
        occurred_at: Some(encode::timestamp(told.happened_at)),
        cursor: told.cursor.unwrap_or_default(),
    }
}

fn kind(change: Change) -> pb::ConnectionEventKind {
    match change {
        Change::Connected => pb::ConnectionEventKind::Connected,
        Change::Refreshed => pb::ConnectionEventKind::Refreshed,
        Change::Failing => pb::ConnectionEventKind::Failing,
        Change::Recovered => pb::ConnectionEventKind::Recovered,
        Change::NeedsRelink => pb::ConnectionEventKind::NeedsRelink,
        Change::Disconnected => pb::ConnectionEventKind::Disconnected,
    }
}

/// Ours are below 300 bytes.
const CURSOR_LEN_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use tokio::sync::{mpsc, oneshot};

    fn synced() -> Told {
        Told { what: What::Synced, happened_at: jiff::Timestamp::UNIX_EPOCH, cursor: Some("cursor".into()) }
    }

    /// T20: a watch does not keep a revoked certificate's connection open.
    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_as_old_as_a_connection_may_be_goes_on_elsewhere() {
        let (tell, told) = mpsc::channel(4);
        let (_end, ended) = oneshot::channel();
        let mut stream = until(Watching::of(told, ended), Duration::from_mins(10));
        for _ in 0..2 {
            tell.send(synced()).await.unwrap();
            assert_eq!(stream.next().await.unwrap().unwrap().cursor, "cursor");
            tokio::time::advance(Duration::from_mins(4)).await;
        }

        let status = stream.next().await.unwrap().unwrap_err();

        assert!(status.message().starts_with("SHUTTING_DOWN"), "{status}");
        assert!(stream.next().await.is_none() && tell.is_closed());
    }

    #[tokio::test]
    async fn what_is_queued_is_told_before_the_end() {
        let (tell, told) = mpsc::channel(4);
        let (end, ended) = oneshot::channel();
        tell.send(synced()).await.unwrap();
        drop(tell);
        end.send(shutting_down()).unwrap();

        let all: Vec<_> = until(Watching::of(told, ended), Duration::from_mins(10)).collect().await;

        assert_eq!(all.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
    }
}
