//! The browser's side of linking: three pages and two callbacks, server-rendered, without JavaScript.
//!
//! # Invariants
//!
//! 1. A GET changes nothing but what Entra's own redirect brings (a code is spent at the callback); the
//!    connection itself arises by the caller's `ConfirmLink` alone.
//! 2. Every sentence is ours: nothing a query brings is shown (threat T18).
//! 3. Redirects are 303; every page is uncacheable, unframeable and sends no referrer.
//!
//! It stands behind the platform's TLS ingress and knows no caller: a browser is its cookie.

mod cookie;
mod pages;
mod query;

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::ids::LinkId;
use crate::links::{Completion, Links, PageProblem};

/// Serves the pages until told to stop.
pub async fn serve(listener: TcpListener, links: Links, stop: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, router(links)).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(links: Links) -> Router {
    let policy = content_security_policy(&links.form_origins().join(" "));
    Router::new()
        .route("/link/style.css", get(style))
        .route("/link/{id}", get(show).post(enter))
        // A HEAD would spend a code like the GET it stands for, and show nobody the page.
        .route("/complete/azure_active_directory", get(complete_developer).head(no_head))
        .route("/complete/azure_active_directory_service_user", get(complete_service_user).head(no_head))
        .fallback(|| async { (StatusCode::NOT_FOUND, pages::problem(PageProblem::Unknown)) })
        .layer(middleware::from_fn(move |request, next: Next| {
            let policy = policy.clone();
            async move { with_headers(next.run(request).await, policy) }
        }))
        .layer(tower::limit::GlobalConcurrencyLimitLayer::new(REQUESTS_MAX))
        .with_state(links)
}

async fn show(State(links): State<Links>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let Ok(id) = id.parse::<LinkId>() else {
        return problem(PageProblem::Unknown);
    };
    match within(links.show(&id)).await {
        Ok(shown) => {
            let mut page = pages::show(&id, &shown).into_response();
            if cookie::read(&headers).is_none() {
                // Before the form, so that a double click on it is one browser. Nothing is stored here.
                let fresh = cookie::write(&crate::secret::make_random_text());
                page.headers_mut().insert(SET_COOKIE, fresh);
            }
            page
        }
        Err(error) => problem(error),
    }
}

async fn enter(State(links): State<Links>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let Ok(id) = id.parse::<LinkId>() else {
        return problem(PageProblem::Unknown);
    };
    // Another site's form must not enter a link in this browser (threat T12).
    if headers.get(SEC_FETCH_SITE).is_some_and(|site| site != "same-origin") {
        return problem(PageProblem::OtherBrowser);
    }
    match within(links.enter(&id, cookie::read(&headers))).await {
        Ok(entered) => {
            let mut response = see_other(&entered.authorize_url);
            response.headers_mut().insert(SET_COOKIE, cookie::write(&entered.cookie));
            response
        }
        Err(error) => problem(error),
    }
}

async fn complete_developer(links: State<Links>, query: RawQuery, headers: HeaderMap) -> Response {
    complete(links, query, &headers, true).await
}

async fn complete_service_user(links: State<Links>, query: RawQuery, headers: HeaderMap) -> Response {
    complete(links, query, &headers, false).await
}

async fn complete(
    State(links): State<Links>,
    RawQuery(query): RawQuery,
    headers: &HeaderMap,
    developers: bool,
) -> Response {
    let Some(callback) = query::callback(query.as_deref(), cookie::read(headers), developers) else {
        return problem(PageProblem::Unknown);
    };
    match within(links.complete(callback)).await {
        Ok(Completion { go_to: Some(target), .. }) => see_other(&target),
        Ok(Completion { completed, go_to: None }) => pages::completed(&completed).into_response(),
        Err(error) => problem(error),
    }
}

fn see_other(url: &Url) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let mut location = HeaderValue::try_from(url.as_str()).expect("a URL is a header value");
    // It carries a state or a confirmation.
    location.set_sensitive(true);
    response.headers_mut().insert(LOCATION, location);
    response
}

async fn no_head() -> StatusCode {
    StatusCode::METHOD_NOT_ALLOWED
}

async fn style() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], pages::STYLE)
}

fn problem(problem: PageProblem) -> Response {
    let status = match problem {
        PageProblem::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        PageProblem::Expired | PageProblem::Over | PageProblem::Used => StatusCode::GONE,
        PageProblem::Unknown => StatusCode::NOT_FOUND,
        PageProblem::OtherBrowser | PageProblem::OtherRole => StatusCode::BAD_REQUEST,
    };
    (status, pages::problem(problem)).into_response()
}

async fn within<T>(work: impl Future<Output = Result<T, PageProblem>>) -> Result<T, PageProblem> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or(Err(PageProblem::Unavailable))
}

fn with_headers(mut response: Response, policy: HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// `form-action` names where the form's redirects lead too: 'self' alone makes Chromium refuse them.
fn content_security_policy(elsewhere: &str) -> HeaderValue {
    let policy = format!(
        "default-src 'none'; style-src 'self'; form-action 'self' {elsewhere}; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("an origin is a header value")
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// A completion asks Entra twice and Azure DevOps once; whoever leaves before finds it finished.
const DEADLINE: Duration = Duration::from_mins(1);
/// People link rarely; more than this at once is not people.
const REQUESTS_MAX: usize = 256;
