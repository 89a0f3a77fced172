//! What a refusal of the token endpoint means: azure.md 1.8 as one pure function, with table 1.9.
//!
//! `error`, `suberror` and `claims` decide; numeric codes only refine, because Microsoft may change
//! them. Throttling that looks like `invalid_grant` is throttling (security.md, finding 2).
//!
//! Nobody's text is kept: an `error_description` may hold anything (test A23).

use std::time::Duration;

use serde_json::{Map, Value};

use super::{EntraError, Verdict};
use crate::outgoing::Answer;

/// All that the judgement rests on.
#[derive(Debug, Default)]
pub(super) struct Facts {
    status: u16,
    error: String,
    suberror: String,
    codes: Vec<u32>,
    has_claims: bool,
    retry_after: Option<Duration>,
    request_id: Option<String>,
}

impl Facts {
    pub(super) fn of(answer: &Answer) -> Self {
        let body: Map<String, Value> = serde_json::from_slice(answer.text_bytes()).unwrap_or_default();
        let text = |name| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let codes = parse_codes(body.get("error_codes"));
        Self {
            status: answer.status,
            error: text("error").to_owned(),
            suberror: text("suberror").to_owned(),
            codes: if codes.is_empty() { code_in(text("error_description")) } else { codes },
            has_claims: !text("claims").is_empty(),
            retry_after: answer.retry_after,
            request_id: answer.header("x-ms-request-id").and_then(parse_request_id),
        }
    }

    fn has_code(&self, known: &[u32]) -> bool {
        self.codes.iter().any(|code| known.contains(code))
    }

    /// Several codes may come; the last one known is the most specific (azure.md 1.8).
    fn code(&self) -> Option<u32> {
        let known = self.codes.iter().rev().find(|code| refine(**code).is_some());
        known.or(self.codes.last()).copied()
    }
}

pub(super) fn judge(facts: Facts) -> EntraError {
    let verdict = decide(&facts);
    let retry_after = facts.retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
    let retry_after = match verdict {
        Verdict::Throttled if facts.has_code(&[LOOP_DETECTED]) => {
            Some(retry_after.unwrap_or_default().max(LOOP_WAIT_MIN))
        }
        Verdict::Throttled => Some(retry_after.unwrap_or(THROTTLED_WAIT)),
        _ => retry_after,
    };
    // A gateway heard nothing it understood from whoever was asked (RFC 9110, 15.6.3 and 15.6.5).
    let may_have_acted = matches!(facts.status, 502 | 504);
    let code = facts.code();
    EntraError { code, retry_after, may_have_acted, request_id: facts.request_id, ..EntraError::new(verdict) }
}

/// What a redirect of the sign-in means that brought no code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Redirect {
    pub declined: Declined,
    /// For people, never for decisions elsewhere.
    pub code: Option<u32>,
}

/// Who declined.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Declined {
    /// The person did, at the sign-in or the consent.
    ByPerson,
    Refused(Verdict),
}

/// Judges a redirect by its `error` and the code its description begins with (azure.md 1.3).
pub fn judge_redirect(error: &str, description: &str) -> Redirect {
    let code = code_in(description).first().copied();
    let refined = code.and_then(refine);
    let declined = match (error, code, refined) {
        (_, Some(code), _) if TRANSIENT.contains(&code) || THROTTLING.contains(&code) => {
            Declined::Refused(Verdict::Transient)
        }
        (_, Some(65_004), _) => Declined::ByPerson,
        (_, _, Some(verdict)) => Declined::Refused(verdict),
        ("access_denied" | "consent_required", ..) => Declined::ByPerson,
        ("interaction_required" | "login_required", ..) => {
            Declined::Refused(Verdict::Relink { unmistakable: false })
        }
        ("server_error" | "temporarily_unavailable", ..) => Declined::Refused(Verdict::Transient),
        ("invalid_resource", ..) => Declined::Refused(Verdict::Admin),
        (
            "invalid_client"
            | "invalid_request"
            | "invalid_scope"
            | "unauthorized_client"
            | "unsupported_response_type",
            ..,
        ) => Declined::Refused(Verdict::AppConfig),
        _ => Declined::Refused(Verdict::Unknown),
    };
    Redirect { declined, code }
}

fn decide(facts: &Facts) -> Verdict {
    if facts.status == 429 || facts.has_code(&THROTTLING) {
        return Verdict::Throttled;
    }
    // A redirect is nothing Entra's token endpoint does: something stands in between (test A24).
    let is_foreign = (300..400).contains(&facts.status) || facts.status == 408;
    let is_error_of_entra = matches!(&*facts.error, "temporarily_unavailable" | "server_error");
    if is_foreign || is_error_of_entra || 500 <= facts.status || facts.has_code(&TRANSIENT) {
        return Verdict::Transient;
    }
    if facts.suberror == "message_only" {
        return Verdict::Admin;
    }
    let refined = facts.code().and_then(refine);
    if facts.has_claims || matches!(&*facts.error, "interaction_required" | "login_required") {
        return refined.unwrap_or(Verdict::Relink { unmistakable: false });
    }
    match &*facts.error {
        "invalid_client" => decide_client(refined),
        "invalid_grant" => decide_grant(&facts.suberror, refined),
        "consent_required" => Verdict::Consent,
        "invalid_resource" => refined.unwrap_or(Verdict::Admin),
        "invalid_request"
        | "invalid_scope"
        | "invalid_tenant"
        | "unauthorized_client"
        | "unsupported_grant_type" => refined.unwrap_or(Verdict::AppConfig),
        _ => refined.unwrap_or(Verdict::Unknown),
    }
}

/// A verdict on the client credential, unless the code tells that it is not to blame.
fn decide_client(refined: Option<Verdict>) -> Verdict {
    match refined {
        Some(verdict @ (Verdict::Admin | Verdict::AppConfig)) => verdict,
        _ => Verdict::ClientCredential,
    }
}

fn decide_grant(suberror: &str, refined: Option<Verdict>) -> Verdict {
    match suberror {
        "client_mismatch" | "device_authentication_failed" | "protection_policy_required" => Verdict::Admin,
        "consent_required" => Verdict::Consent,
        _ => refined.unwrap_or(Verdict::Relink { unmistakable: false }),
    }
}

/// Table 1.9, without what follows from `error` anyway.
fn refine(code: u32) -> Option<Verdict> {
    match code {
        // Resource or service principal missing, guest not redeemed, account locked or disabled, not
        // assigned, not in the directory, app disabled, partner not authorized.
        50_001 | 500_011 | 50_014 | 50_053 | 50_057 | 50_105 | 51_004 | 650_052 | 7_000_112 | 7_000_229
        | 90_099 | 1_000_031
        // Conditional Access and its kin: signing in again does not help.
        | 50_131 | 53_000..=53_004 | 53_010 | 53_011 | 530_032 | 530_034 | 530_035 => Some(Verdict::Admin),
        65_001 | 65_004 | 90_094 | 90_095 => Some(Verdict::Consent),
        // Redirect URI, tenant segment, app not multitenant or not in the tenant, permissions,
        // several resources, public client, wrong platform, malformed requests.
        50_011 | 500_112 | 50_049 | 50_059 | 50_128 | 50_194 | 65_005 | 650_053 | 650_054 | 650_056
        | 650_057 | 70_001 | 700_016 | 70_003 | 700_005 | 70_011 | 1_002_012 | 70_022 | 700_022
        | 700_020 | 700_025 | 700_054 | 7_000_114 | 7_000_218 | 90_002 | 90_013 | 90_014 | 900_144
        | 90_124 | 90_130 | 9_001_023 | 900_971 | 9_002_326 | 9_002_327 | 9_002_332 => {
            Some(Verdict::AppConfig)
        }
        // User deleted, grant revoked, grant idle for 90 days.
        50_034 | 50_173 | 700_082 => Some(Verdict::Relink { unmistakable: true }),
        16_000 | 50_020 | 50_055 | 50_058 | 50_072 | 50_074 | 50_076 | 50_078 | 50_079 | 50_085 | 50_089
        | 50_097 | 50_126 | 50_132 | 50_133 | 50_135 | 50_140 | 50_144 | 50_147 | 50_148 | 501_481
        | 50_158 | 50_199 | 54_005 | 70_000 | 70_008 | 70_043 | 700_084 | 90_072 => {
            Some(Verdict::Relink { unmistakable: false })
        }
        // Nobody whom the app trusts issued the federated assertion: another credential may do.
        70_021 | 700_211..=700_213 => Some(Verdict::ClientCredential),
        _ => None,
    }
}

fn parse_codes(value: Option<&Value>) -> Vec<u32> {
    match value {
        Some(Value::Array(values)) => values.iter().filter_map(parse_code).collect(),
        Some(value) => parse_code(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn parse_code(value: &Value) -> Option<u32> {
    match value {
        Value::Number(number) => number.as_u64()?.try_into().ok(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The code a description begins with: `AADSTS50196: …`.
fn code_in(description: &str) -> Vec<u32> {
    let Some(rest) = description.strip_prefix("AADSTS") else { return Vec::new() };
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().into_iter().collect()
}

/// Only what has the shape of a GUID, because it will be shown and logged.
fn parse_request_id(text: &str) -> Option<String> {
    let shaped = text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    shaped.then(|| text.to_owned())
}

/// "Client loop detected": asked too often with one grant, told as `invalid_grant`.
pub(super) const LOOP_DETECTED: u32 = 50_196;
const THROTTLING: [u32; 2] = [LOOP_DETECTED, 90_055];
const TRANSIENT: [u32; 7] = [50_033, 51_005, 90_006, 90_012, 90_024, 90_033, 90_090];
/// What ends a detected loop (azure.md 5.6, row 33).
const LOOP_WAIT_MIN: Duration = Duration::from_mins(1);
/// Throttled without being told for how long (azure.md 1.10).
const THROTTLED_WAIT: Duration = Duration::from_mins(1);
/// Longer would let one odd answer silence a connection for most of a token's life (F08).
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests;
