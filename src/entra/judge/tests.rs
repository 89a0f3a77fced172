//! Table 1.9 of azure.md and the rules around it, row by row.

use super::Verdict::{Admin, AppConfig, ClientCredential, Consent, Throttled, Transient, Unknown};
use super::*;

const RELINK: Verdict = Verdict::Relink { unmistakable: false };
const UNMISTAKABLE: Verdict = Verdict::Relink { unmistakable: true };

/// Code, `error`, `suberror`, HTTP status, verdict.
type Row = (u32, &'static str, &'static str, u16, Verdict);

const TABLE: &[Row] = &[
    (16_000, "interaction_required", "", 400, RELINK),
    (500_011, "invalid_resource", "", 400, Admin),
    (50_011, "invalid_grant", "", 400, AppConfig),
    (50_011, "invalid_client", "", 401, AppConfig),
    (50_012, "invalid_client", "", 401, ClientCredential),
    (700_027, "invalid_client", "", 401, ClientCredential),
    (700_030, "invalid_client", "", 401, ClientCredential),
    (50_014, "invalid_grant", "", 400, Admin),
    (50_020, "invalid_grant", "", 400, RELINK),
    (50_033, "invalid_grant", "", 400, Transient),
    (50_033, "server_error", "", 503, Transient),
    (50_034, "invalid_grant", "bad_token", 400, UNMISTAKABLE),
    (50_049, "invalid_request", "", 400, AppConfig),
    (50_053, "invalid_grant", "", 400, Admin),
    (50_055, "invalid_grant", "user_password_expired", 400, RELINK),
    (50_057, "invalid_grant", "", 400, Admin),
    (50_058, "login_required", "", 400, RELINK),
    (50_072, "invalid_grant", "basic_action", 400, RELINK),
    (50_076, "invalid_grant", "basic_action", 400, RELINK),
    (50_076, "interaction_required", "basic_action", 400, RELINK),
    (50_079, "interaction_required", "", 400, RELINK),
    (50_097, "invalid_grant", "additional_action", 400, RELINK),
    (50_131, "invalid_grant", "", 400, Admin),
    (50_097, "invalid_grant", "device_authentication_failed", 400, Admin),
    (50_105, "invalid_grant", "", 400, Admin),
    (50_126, "invalid_grant", "", 400, RELINK),
    (50_144, "invalid_grant", "", 400, RELINK),
    (50_148, "invalid_grant", "", 400, RELINK),
    (501_481, "invalid_grant", "", 400, RELINK),
    (50_158, "interaction_required", "", 400, RELINK),
    (50_173, "invalid_grant", "bad_token", 400, UNMISTAKABLE),
    (50_194, "invalid_request", "", 400, AppConfig),
    (50_196, "invalid_grant", "", 400, Throttled),
    (51_004, "invalid_grant", "", 400, Admin),
    (51_005, "invalid_grant", "", 503, Transient),
    (53_000, "invalid_grant", "message_only", 400, Admin),
    (53_003, "invalid_grant", "message_only", 400, Admin),
    (53_003, "interaction_required", "message_only", 400, Admin),
    (53_011, "invalid_grant", "", 400, Admin),
    (530_034, "invalid_grant", "", 400, Admin),
    (54_005, "invalid_grant", "", 400, RELINK),
    (65_001, "invalid_grant", "consent_required", 400, Consent),
    (65_001, "invalid_grant", "", 400, Consent),
    (65_004, "consent_required", "", 400, Consent),
    (65_005, "invalid_client", "", 401, AppConfig),
    (650_052, "invalid_grant", "", 400, Admin),
    (650_056, "invalid_request", "", 400, AppConfig),
    (650_057, "invalid_client", "", 401, AppConfig),
    (70_000, "invalid_grant", "bad_token", 400, RELINK),
    (700_016, "unauthorized_client", "", 400, AppConfig),
    (7_000_112, "unauthorized_client", "", 400, Admin),
    (700_005, "invalid_grant", "", 400, AppConfig),
    (70_002, "invalid_client", "", 401, ClientCredential),
    (70_003, "unsupported_grant_type", "", 400, AppConfig),
    (70_008, "invalid_grant", "", 400, RELINK),
    (70_011, "invalid_scope", "", 400, AppConfig),
    (1_002_012, "invalid_scope", "", 400, AppConfig),
    (70_043, "invalid_grant", "token_expired", 400, RELINK),
    (700_022, "invalid_request", "", 400, AppConfig),
    (700_025, "invalid_client", "", 401, AppConfig),
    (700_082, "invalid_grant", "bad_token", 400, UNMISTAKABLE),
    (700_084, "invalid_grant", "", 400, RELINK),
    (7_000_215, "invalid_client", "", 401, ClientCredential),
    (7_000_218, "invalid_client", "", 401, AppConfig),
    (7_000_222, "invalid_client", "", 401, ClientCredential),
    (7_000_229, "invalid_client", "", 401, Admin),
    (90_002, "invalid_request", "", 400, AppConfig),
    (90_002, "invalid_tenant", "", 400, AppConfig),
    (90_033, "temporarily_unavailable", "", 400, Transient),
    (90_033, "temporarily_unavailable", "", 503, Transient),
    (90_012, "invalid_request", "", 400, Transient),
    (90_055, "invalid_request", "", 400, Throttled),
    (900_144, "invalid_request", "", 400, AppConfig),
    (9_002_313, "invalid_request", "", 400, AppConfig),
    (9_002_313, "invalid_grant", "", 400, RELINK),
    (90_072, "invalid_grant", "", 400, RELINK),
    (90_094, "interaction_required", "", 400, Consent),
    (90_099, "invalid_grant", "", 400, Admin),
    (9_001_023, "invalid_request", "", 400, AppConfig),
    (9_002_326, "invalid_request", "", 400, AppConfig),
    (1_000_031, "invalid_grant", "", 400, Admin),
    // Codes of nobody's table: `error` and `suberror` decide.
    (999_999, "invalid_grant", "", 400, RELINK),
    (999_999, "invalid_grant", "client_mismatch", 400, Admin),
    (999_999, "invalid_grant", "protection_policy_required", 400, Admin),
    (999_999, "invalid_client", "", 401, ClientCredential),
    (999_999, "invalid_request", "", 400, AppConfig),
    (999_999, "brand_new", "", 400, Unknown),
    // An outage answers with whatever it likes.
    (50_173, "invalid_grant", "bad_token", 503, Transient),
];

fn judged(status: u16, headers: &[(&'static str, &str)], body: &str) -> EntraError {
    judge(Facts::of(&Answer::made(status, headers, body)))
}

#[test]
fn every_row_of_the_table_gets_its_verdict() {
    for &(code, error, suberror, status, verdict) in TABLE {
        let body = serde_json::json!({
            "error": error, "suberror": suberror, "error_codes": [code],
            "error_description": format!("AADSTS{code}: text"),
        });
        let judged = judged(status, &[], &body.to_string());
        assert_eq!(judged.verdict, verdict, "{code} {error} {suberror} {status}");
        assert_eq!(judged.code, Some(code));
    }
}

#[test]
fn claims_ask_for_the_person_unless_they_only_carry_a_message() {
    let claims = r#""claims":"{\"access_token\":{}}""#;
    let body = format!(r#"{{"error":"invalid_grant","error_codes":[50079],{claims}}}"#);
    assert_eq!(judged(400, &[], &body).verdict, RELINK);
    let body = format!(r#"{{"error":"invalid_grant","suberror":"message_only","error_codes":[1],{claims}}}"#);
    assert_eq!(judged(400, &[], &body).verdict, Admin);
}

#[test]
fn the_last_known_code_of_several_counts() {
    let body = r#"{"error":"invalid_grant","error_codes":[70002,"54005",424242]}"#;
    let judged = judged(400, &[], body);
    assert_eq!((judged.verdict, judged.code), (RELINK, Some(54_005)));
}

#[test]
fn f11_a_loop_told_as_invalid_grant_is_throttling_for_a_minute_at_least() {
    let body = r#"{"error":"invalid_grant","error_description":"AADSTS50196: The server terminated"}"#;
    assert_eq!(judged(400, &[], body).verdict, Throttled);
    assert_eq!(judged(400, &[("retry-after", "5")], body).retry_after, Some(Duration::from_mins(1)));
    assert_eq!(judged(400, &[("retry-after", "90")], body).retry_after, Some(Duration::from_secs(90)));
}

#[test]
fn f08_throttling_and_outages_wait_as_told_but_at_most_ten_minutes() {
    let told = judged(429, &[("retry-after", "17")], "Too many requests");
    assert_eq!((told.verdict, told.retry_after), (Throttled, Some(Duration::from_secs(17))));
    assert_eq!(judged(429, &[], "").retry_after, Some(Duration::from_mins(1)));
    let down = judged(503, &[("retry-after", "1000000000")], "<html>");
    assert_eq!((down.verdict, down.retry_after), (Transient, Some(Duration::from_mins(10))));
    assert_eq!(judged(500, &[], "").retry_after, None);
}

#[test]
fn a24_a_redirect_is_transient() {
    for status in [302, 307, 308] {
        assert_eq!(judged(status, &[("location", "https://evil.example/")], "").verdict, Transient);
    }
}

#[test]
fn what_nobody_understands_is_unknown_and_condemns_nobody() {
    for body in ["", "<html>", "[]", r#"{"error":7}"#, r#"{"error":"invalid_grant""#] {
        assert_eq!(judged(400, &[], body).verdict, Unknown, "{body}");
    }
    assert_eq!(judged(404, &[], "").verdict, Unknown);
}

#[test]
fn a23_no_text_of_entra_is_in_the_error() {
    let body = r#"{"error":"canary","suberror":"canary","error_description":"canary\u001b[1m\n<script>"}"#;
    let judged = judged(400, &[("x-ms-request-id", "canary<script>")], body);
    assert!(!format!("{judged} {judged:?}").contains("canary"));
    let id = "11111111-2222-3333-4444-555555555555";
    assert_eq!(
        super::judge(Facts::of(&Answer::made(400, &[("x-ms-request-id", id)], ""))).request_id.unwrap(),
        id
    );
}
