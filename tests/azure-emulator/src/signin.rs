//! Signing in without a browser: the request a browser would send, and what came of it.

use axum::http::{HeaderValue, Method};
use http_body_util::BodyExt as _;
use url::Url;

use crate::call::{Answer, Call, Door};
use crate::hosts::LOGIN;

/// The request of somebody who accepts as `user`, or declines. `None` if this is no address.
pub(crate) fn call(authorize_url: &str, user: Option<&str>) -> Option<Call> {
    let url = Url::parse(authorize_url).ok()?;
    let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    let mut call = Call::new(Door::Proxy, LOGIN, Method::GET, &target);
    let name = HeaderValue::from_str(user.unwrap_or("nobody")).ok()?;
    call.headers.insert("x-emu-user", name);
    if user.is_none() {
        call.headers.insert("x-emu-decline", HeaderValue::from_static("1"));
    }
    Some(call)
}

/// Where the browser would go, or the page it would show.
pub(crate) async fn location(answer: Answer) -> Result<String, String> {
    let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
    if let Some(location) = location {
        return Ok(location.to_owned());
    }
    let page = answer.into_body().collect().await.map_err(|problem| problem.to_string())?;
    Err(String::from_utf8_lossy(&page.to_bytes()).into_owned())
}
