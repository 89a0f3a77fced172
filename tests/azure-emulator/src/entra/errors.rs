//! Refusals of Entra ID: as a JSON body, as parameters of a redirect, as a page.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::call::{Answer, Call, json as answer_json, with_header};
use crate::state::Shared;

/// An `AADSTS` error.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) code: u32,
    pub(super) error: String,
    pub(super) http: u16,
    pub(super) suberror: Option<String>,
    pub(super) claims: Option<String>,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(code: u32, error: &str, text: &str) -> Self {
        let http = if error == "invalid_client" { 401 } else { 400 };
        Self { code, error: error.to_owned(), http, suberror: None, claims: None, text: text.to_owned() }
    }

    pub(super) fn request(code: u32, text: &str) -> Self {
        Self::new(code, "invalid_request", text)
    }

    pub(super) fn grant(code: u32, text: &str) -> Self {
        Self::new(code, "invalid_grant", text)
    }

    pub(super) fn client(code: u32, text: &str) -> Self {
        Self::new(code, "invalid_client", text)
    }

    pub(super) fn because(self, suberror: &str) -> Self {
        Self { suberror: Some(suberror.to_owned()), ..self }
    }

    /// The usual form of a code, for errors that are forced by a switch.
    pub(super) fn of_code(code: u32) -> Self {
        let (error, suberror) = usual(code);
        let text = "The emulator was told to answer so.";
        Self { suberror: suberror.map(str::to_owned), ..Self::new(code, error, text) }
    }

    pub(super) fn error_uri(&self) -> String {
        format!("https://login.microsoftonline.com/error?code={}", self.code)
    }

    /// The text with the ids that support asks for.
    pub(super) fn description(&self, ids: &Ids) -> String {
        format!(
            "AADSTS{}: {}\r\nTrace ID: {}\r\nCorrelation ID: {}\r\nTimestamp: {}",
            self.code, self.text, ids.trace, ids.correlation, ids.timestamp
        )
    }

    fn body(&self, ids: &Ids) -> Value {
        let mut body = json!({
            "error": self.error,
            "error_description": self.description(ids),
            "error_codes": [self.code],
            "timestamp": ids.timestamp,
            "trace_id": ids.trace,
            "correlation_id": ids.correlation,
            "error_uri": self.error_uri(),
        });
        if let Some(suberror) = &self.suberror {
            body["suberror"] = json!(suberror);
        }
        if let Some(claims) = &self.claims {
            body["claims"] = json!(claims);
        }
        body
    }

    pub(super) fn into_answer(self, shared: &Shared, call: &Call) -> Answer {
        let ids = Ids::make(shared, call);
        with_ids(answer_json(self.http, &self.body(&ids)), call, &ids)
    }
}

/// What identifies one answer to the support.
pub(super) struct Ids {
    pub(super) trace: String,
    pub(super) correlation: String,
    pub(super) timestamp: String,
}

impl Ids {
    pub(super) fn make(shared: &Shared, call: &Call) -> Self {
        let timestamp = shared.clock.now();
        let random = &mut shared.state().random;
        let asked = call.header("client-request-id").map(str::to_owned);
        Self {
            trace: random.make_guid(),
            correlation: asked.unwrap_or_else(|| random.make_guid()),
            timestamp: written(timestamp),
        }
    }
}

/// The headers that answers of the token endpoint carry.
pub(super) fn with_ids(answer: Answer, call: &Call, ids: &Ids) -> Answer {
    let answer = [
        ("pragma", "no-cache"),
        ("expires", "-1"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ("x-content-type-options", "nosniff"),
        ("x-ms-request-id", ids.trace.as_str()),
        ("x-ms-ests-server", "2.1.0 - EMULATOR"),
        ("set-cookie", "fpc=emulator; path=/; secure; HttpOnly; SameSite=None"),
        ("set-cookie", "stsservicecookie=estsfd; path=/; secure; samesite=none; httponly"),
    ]
    .into_iter()
    .fold(answer, |answer, (name, value)| with_header(answer, name, value));
    if call.header("return-client-request-id") == Some("true") {
        with_header(answer, "client-request-id", &ids.correlation)
    } else {
        answer
    }
}

fn written(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

fn usual(code: u32) -> (&'static str, Option<&'static str>) {
    match code {
        50_012 | 70_021 | 700_021 | 700_023 | 700_024 | 700_027 | 700_030 | 70_002 | 700_025 | 7_000_215
        | 7_000_218 | 7_000_222 | 7_000_229 => ("invalid_client", None),
        700_016 | 70_001 | 7_000_112 => ("unauthorized_client", None),
        90_002 | 90_014 | 900_144 => ("invalid_request", None),
        70_011 | 1_002_012 => ("invalid_scope", None),
        50_001 | 500_011 => ("invalid_resource", None),
        90_033 => ("temporarily_unavailable", None),
        50_072 | 50_074 | 50_076 | 50_078 | 50_079 => ("invalid_grant", Some("basic_action")),
        53_000..=53_004 => ("invalid_grant", Some("message_only")),
        65_001 => ("invalid_grant", Some("consent_required")),
        70_043 => ("invalid_grant", Some("token_expired")),
        50_034 | 50_173 | 700_082 => ("invalid_grant", Some("bad_token")),
        50_055 => ("invalid_grant", Some("user_password_expired")),
        _ => ("invalid_grant", None),
    }
}
