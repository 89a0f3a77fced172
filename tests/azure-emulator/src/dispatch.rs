//! Which part of the emulator answers a request, and the record of it.
//!
//! By host behind the proxy; by path on localhost, where all hosts are one.

use axum::http::HeaderValue;
use axum::http::header::DATE;
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::call::{Answer, Call, Door, text, value_of};
use crate::hosts::{self, Role};
use crate::record::Recorded;
use crate::state::Shared;
use crate::switches::{self, Place};
use crate::{control, devops, entra, random};

/// Answers a request and keeps a record of it. Control calls are not recorded.
pub(crate) async fn answer(shared: &Shared, mut call: Call) -> Answer {
    let is_control = call.segments.first().is_some_and(|first| first == "_emu");
    match call.door {
        Door::Control => return control::answer(shared, &call).await,
        Door::Https if is_control => return control::answer(shared, &call).await,
        Door::Proxy | Door::Https | Door::Browser => {}
    }
    record(shared, &mut call);
    let n = call.n;
    let mut answer = route(shared, call).await;
    shared.state().log.answered(n, answer.status().as_u16());
    // Else hyper would tell the system's time, which is not the one that tokens and secrets live in.
    if let Some(date) = date(shared) {
        answer.headers_mut().insert(DATE, date);
    }
    answer
}

fn date(shared: &Shared) -> Option<HeaderValue> {
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&shared.clock.now()).ok()?;
    HeaderValue::from_str(&date).ok()
}

async fn route(shared: &Shared, mut call: Call) -> Answer {
    let role = role(&mut call);
    let answering = async {
        match role {
            Some(Role::Entra) if call.door == Door::Browser => entra::answer_browser(shared, &call),
            Some(Role::Entra) => entra::answer(shared, &call).await,
            Some(Role::Devops | Role::LegacyDevops(_)) => devops::answer(shared, &call).await,
            Some(Role::Profile) => devops::answer_profile(shared, &call),
            None => text(404, "no such host\n"),
        }
    };
    switches::at(place(shared, role.as_ref(), &call), answering).await
}

/// Which service is meant. A legacy host's organization becomes the first segment, as elsewhere.
fn role(call: &mut Call) -> Option<Role> {
    let role = match call.door {
        Door::Browser => Some(Role::Entra),
        Door::Proxy => hosts::role(&call.host),
        Door::Https | Door::Control => Some(match call.segments().as_slice() {
            [_, "oauth2" | "v2.0" | "discovery", ..] => Role::Entra,
            ["_apis", ..] => Role::Profile,
            _ => Role::Devops,
        }),
    };
    if let Some(Role::LegacyDevops(organization)) = &role {
        call.segments.insert(0, organization.clone());
        if call.segments.get(1).is_some_and(|part| part == "DefaultCollection") {
            call.segments.remove(1);
        }
    }
    role
}

fn place(shared: &Shared, role: Option<&Role>, call: &Call) -> Place {
    let now = shared.clock.now();
    let Some(first) = call.segments.first() else { return Place { now, ..Place::default() } };
    match role {
        Some(Role::Entra) => {
            let mut names = vec![first.clone()];
            if let Some(tenant) = shared.state().world.tenant(first) {
                names.push(tenant.id.clone());
                names.extend(tenant.domains.iter().cloned());
            }
            Place { tenant: names, now, ..Place::default() }
        }
        Some(Role::Devops | Role::LegacyDevops(_)) => {
            Place { organization: Some(first.clone()), now, ..Place::default() }
        }
        Some(Role::Profile) | None => Place { now, ..Place::default() },
    }
}

pub(crate) fn record(shared: &Shared, call: &mut Call) {
    let form = call.form();
    let access_token = devops::credential(call).map(|token| random::fingerprint(&token));
    let authorization = call.header("authorization").and_then(|value| value.split_once(' '));
    let authorization = authorization.map(|(scheme, _)| scheme);
    let recorded = Recorded {
        n: 0,
        time: shared.clock.now(),
        door: call.door.as_str(),
        host: call.host.clone(),
        method: call.method.to_string(),
        path: call.path.clone(),
        query: call.query.iter().map(redacted).collect(),
        user_agent: call.header("user-agent").map(str::to_owned),
        authorization: authorization.map(str::to_owned),
        access_token,
        grant_type: value_of(&form, "grant_type").map(str::to_owned),
        client_id: value_of(&form, "client_id").or(call.query("client_id")).map(str::to_owned),
        status: None,
        token: None,
    };
    shared.record(call, recorded);
}

fn redacted((name, value): &(String, String)) -> (String, String) {
    let is_secret = matches!(name.as_str(), "code" | "client_secret" | "refresh_token" | "code_verifier");
    (name.clone(), if is_secret { "…".to_owned() } else { value.clone() })
}
