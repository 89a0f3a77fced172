//! The control API under `/_emu/`: looks at the emulator and changes it.
//!
//! Reachable on the control port and on localhost's HTTPS port, never through the proxy.

mod app_change;
mod change;

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

pub use self::change::Change;
use crate::call::{Answer, Call, answer as make_answer, json as answer_json};
use crate::random::fingerprint;
use crate::state::{Shared, Subject};
use crate::switches::Switch;
use crate::{dispatch, signin};

pub(crate) async fn answer(shared: &Shared, call: &Call) -> Answer {
    match (call.method.as_str(), call.segments().as_slice()) {
        ("GET", ["_emu", "requests"]) => requests(shared),
        ("DELETE", ["_emu", "requests"]) => {
            shared.state().log.clear();
            done()
        }
        ("GET", ["_emu", "faults"]) => {
            let now = shared.clock.now();
            answer_json(200, &json!({ "faults": shared.state().faults.all(now) }))
        }
        ("POST", ["_emu", "faults"]) => with_body(call, |switches: OneOrMany<Switch>| {
            switches.into_vec().into_iter().for_each(|switch| shared.switch(switch));
            done()
        }),
        ("DELETE", ["_emu", "faults"]) => {
            shared.clear_faults();
            done()
        }
        ("GET", ["_emu", "held"]) => answer_json(200, &json!({ "held": shared.gate.held() })),
        ("POST", ["_emu", "release"]) => {
            shared.release();
            done()
        }
        ("GET", ["_emu", "clock"]) => clock(shared),
        ("POST", ["_emu", "clock"]) => with_body(call, |body: Advance| {
            shared.clock.advance(Duration::from_secs(body.advance_s));
            clock(shared)
        }),
        ("GET", ["_emu", "world"]) => answer_json(200, &json!(shared.state().world)),
        ("POST", ["_emu", "world"]) => with_body(call, |changes: OneOrMany<Change>| {
            let mut state = shared.state();
            let outcome =
                changes.into_vec().into_iter().try_for_each(|change| change.apply(&mut state.world));
            outcome.map_or_else(|problem| refused(&problem), |()| done())
        }),
        ("GET", ["_emu", "ca"]) => make_answer(200, "application/x-pem-file", shared.authority_pem.clone()),
        ("GET", ["_emu", "tokens"]) => tokens(shared, call.query("reveal") == Some("1")),
        ("POST", ["_emu", "sign-in"]) => sign_in(shared, call).await,
        _ => refused_with(404, "there is nothing here; see the README for the control API"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_s: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    authorize_url: String,
    /// Absent: decline.
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::Many(many) => many,
            Self::One(one) => vec![one],
        }
    }
}

fn with_body<T: for<'de> Deserialize<'de>>(call: &Call, then: impl FnOnce(T) -> Answer) -> Answer {
    match serde_json::from_slice(&call.body) {
        Ok(body) => then(body),
        Err(problem) => refused(&problem.to_string()),
    }
}

fn requests(shared: &Shared) -> Answer {
    answer_json(200, &json!({ "requests": shared.state().log.all() }))
}

fn clock(shared: &Shared) -> Answer {
    answer_json(200, &json!({ "now": shared.clock.now() }))
}

/// Every token ever issued: by fingerprint, and raw when asked for.
fn tokens(shared: &Shared, reveal: bool) -> Answer {
    let state = shared.state();
    let entry = |kind: &str, token: &str, subject: &Subject, client_id: &str| {
        let mut entry = json!({
            "kind": kind, "fingerprint": fingerprint(token), "client_id": client_id,
            "user_oid": subject.oid, "user": subject.name,
        });
        if reveal {
            entry["token"] = json!(token);
        }
        entry
    };
    let refresh = state.refresh_tokens.iter();
    let refresh = refresh.map(|(token, it)| entry("refresh", token, &it.subject, &it.client_id));
    let access = state.access_tokens.iter();
    let access = access.map(|(token, it)| entry("access", token, &it.subject, &it.client_id));
    let tokens: Vec<Value> = refresh.chain(access).collect();
    answer_json(200, &json!({ "tokens": tokens }))
}

async fn sign_in(shared: &Shared, call: &Call) -> Answer {
    let Ok(body) = serde_json::from_slice::<SignIn>(&call.body) else {
        return refused("authorize_url and user are expected");
    };
    let Some(call) = signin::call(&body.authorize_url, body.user.as_deref()) else {
        return refused("authorize_url is no address of a sign-in");
    };
    // On the heap, because dispatching leads back here.
    let answer = Box::pin(dispatch::answer(shared, call)).await;
    match signin::location(answer).await {
        Ok(location) => answer_json(200, &json!({ "location": location })),
        Err(page) => refused(&page),
    }
}

fn done() -> Answer {
    answer_json(200, &json!({}))
}

fn refused(problem: &str) -> Answer {
    refused_with(400, problem)
}

fn refused_with(status: u16, problem: &str) -> Answer {
    answer_json(status, &json!({ "problem": problem }))
}
