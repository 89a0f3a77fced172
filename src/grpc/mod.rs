//! The gRPC face: decodes, asks a use case, encodes. No decision is taken here.
//!
//! One file per service; [`status`] is the only place that makes a [`tonic::Status`], [`peer`] the only
//! one that says who calls, [`parse`] the only one that turns text into names.

mod broker;
mod connections;
mod encode;
mod health;
mod import;
mod integrations;
mod operations;
mod parse;
mod peer;
mod reflect;
mod server;
mod status;
mod watch;

pub use health::HealthWatch;
pub use server::{ServerLimits, serve, services};

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::gate::Asking;
use crate::integrations::{Checks, Integrations};
use crate::links::Links;
use crate::operations::Operations;
use crate::policy::Policy;
use crate::reason::{Problem, Reason, Refused};
use crate::release::Release;
use crate::repos::Repos;

/// What the face serves.
#[derive(Clone)]
pub struct Face {
    pub checks: Checks,
    pub integrations: Integrations,
    pub links: Links,
    pub operations: Operations,
    pub policy: Arc<Policy>,
    pub release: Release,
    pub repos: Repos,
    pub admission: Admission,
    /// How long a watch lasts at most.
    pub watch_age_max: Duration,
}

/// How many calls may be in flight in this process, whichever connection they came by.
#[derive(Clone)]
pub struct Admission {
    places: Arc<Semaphore>,
    in_flight_max: usize,
    draining: CancellationToken,
}

impl Admission {
    pub fn new(in_flight_max: usize) -> Self {
        let places = Arc::new(Semaphore::new(in_flight_max));
        Self { places, in_flight_max, draining: CancellationToken::new() }
    }

    /// Waits until no call is in flight; from now on none is admitted.
    pub async fn drained(&self) {
        self.draining.cancel();
        let all = u32::try_from(self.in_flight_max).unwrap_or(u32::MAX);
        match self.places.acquire_many(all).await {
            Ok(places) => places.forget(),
            Err(_) => unreachable!("nobody closes the semaphore"),
        }
    }

    /// A place among the calls in flight, or a refusal at once: a queue would only grow (P8).
    fn enter(&self) -> Result<OwnedSemaphorePermit, Refused> {
        if self.draining.is_cancelled() {
            let detail = "this instance is shutting down";
            return Err(Problem::new(Reason::ShuttingDown, detail).retry_after(SHED_RETRY).into());
        }
        self.places.clone().try_acquire_owned().map_err(|_| {
            Problem::new(Reason::RateLimited, "too many calls are in flight").retry_after(SHED_RETRY).into()
        })
    }
}

impl Face {
    /// Runs one call: admitted, within its deadline, its refusal turned into a status.
    async fn call<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, Refused>>,
    ) -> Result<tonic::Response<T>, Status> {
        let _admitted = self.admission.enter().map_err(|refused| status::of(&refused))?;
        let ended = tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| Err(late()));
        ended.map(tonic::Response::new).map_err(|refused| status::of(&refused))
    }
}

/// Who asks through which method; what they say of actor and purpose is for the record alone.
fn asking<T>(act: &'static str, request: &Request<T>, actor: &str, purpose: &str) -> Result<Asking, Status> {
    let caller = peer::caller(request)?;
    let actor = parse::label("actor", actor).map_err(|refused| status::of(&refused))?;
    let purpose = parse::label("purpose", purpose).map_err(|refused| status::of(&refused))?;
    Ok(Asking { act, caller, actor, purpose })
}

fn late() -> Refused {
    Problem::new(Reason::UpstreamUnavailable, "the answer took too long; what was begun goes on")
        .retry_after(SHED_RETRY)
        .into()
}

/// Releases wait 10 s for a refresh and 2 s for the audit (design.md 6.19).
const RELEASE_DEADLINE: Duration = Duration::from_secs(14);
/// Azure DevOps may take over a minute for a large organization.
const LIST_DEADLINE: Duration = Duration::from_secs(90);
/// Looking and changing: store and audit, and for links two calls upstream.
const CHANGE_DEADLINE: Duration = Duration::from_mins(1);
const SHED_RETRY: Duration = Duration::from_secs(2);
