//! Answers that end before they are whole.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio_util::io::ReaderStream;

use crate::call::Answer;

/// The first bytes of an answer; then its body ends as if that were all, or the connection breaks off.
pub(crate) async fn cut_answer(answer: Answer, bytes: usize, cleanly: bool) -> Answer {
    let (mut parts, body) = answer.into_parts();
    let whole = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let start = whole.slice(..bytes.min(whole.len()));
    parts.headers.remove(CONTENT_LENGTH);
    let body = if cleanly {
        Body::from(start)
    } else {
        Body::from_stream(ReaderStream::new(Cursor::new(start).chain(Broken)))
    };
    Answer::from_parts(parts, body)
}

/// A connection that breaks off.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}
