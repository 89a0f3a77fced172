//! Table 1.9 of azure.md and the rules around it, row by row.

use super::Verdict::{Admin, AppConfig, ClientCredential, Consent, Throttled, Transient, Unknown};
use super::*;

const RELINK: Verdict = Verdict::Relink { unmistakable: false };
const UNMISTAKABLE: Verdict = Verdict::Relink { unmistakable: true };

/// Codes, HTTP status, `error`, `suberror`, verdict.
type Row = (&'static [u32], u16, &'static str, &'static str, Verdict);

/// The rows of azure.md 1.9 in their order, each in every form that it states; rows that stand on a page or
/// a redirect only are in [`REDIRECTS`], and with the form the token endpoint would give them here too.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    (&[16_000], 400, "interaction_required", "", RELINK),
    (&[50_001, 500_011], 400, "invalid_resource", "", Admin),
    (&[50_011, 500_112], 400, "invalid_grant", "", AppConfig),
    (&[50_011, 500_112], 401, "invalid_client", "", AppConfig),
    (&[50_012, 700_027, 700_030], 401, "invalid_client", "", ClientCredential),
    (&[50_014], 400, "invalid_grant", "", Admin),
    (&[50_020], 400, "invalid_grant", "", RELINK),
    (&[50_033], 400, "invalid_grant", "", Transient),
    (&[50_033], 503, "server_error", "", Transient),
    (&[50_034], 400, "invalid_grant", "bad_token", UNMISTAKABLE),
    (&[50_049, 50_059, 50_128], 400, "invalid_request", "", AppConfig),
    (&[50_053], 400, "invalid_grant", "", Admin),
    (&[50_055], 400, "invalid_grant", "user_password_expired", RELINK),
    (&[50_057], 400, "invalid_grant", "", Admin),
    (&[50_058], 400, "login_required", "", RELINK),
    (&[50_072, 50_074, 50_076, 50_078, 50_079], 400, "invalid_grant", "basic_action", RELINK),
    (&[50_072, 50_074, 50_076, 50_078, 50_079], 400, "interaction_required", "basic_action", RELINK),
    (&[50_079], 400, "interaction_required", "", RELINK),
    (&[50_085, 50_089], 400, "invalid_grant", "", RELINK),
    (&[50_097, 50_132, 50_133], 400, "invalid_grant", "", RELINK),
    (&[50_097], 400, "invalid_grant", "additional_action", RELINK),
    (&[50_097], 400, "invalid_grant", "device_authentication_failed", Admin),
    (&[50_131], 400, "invalid_grant", "", Admin),
    (&[50_105], 400, "invalid_grant", "", Admin),
    (&[50_126], 400, "invalid_grant", "", RELINK),
    (&[50_135, 50_144], 400, "invalid_grant", "", RELINK),
    (&[50_140, 50_199], 400, "interaction_required", "", RELINK),
    (&[50_147, 50_148, 501_481], 400, "invalid_grant", "", RELINK),
    (&[50_158], 400, "interaction_required", "", RELINK),
    (&[50_173], 400, "invalid_grant", "bad_token", UNMISTAKABLE),
    (&[50_194], 400, "invalid_request", "", AppConfig),
    (&[50_196], 400, "invalid_grant", "", Throttled),
    (&[51_004], 400, "invalid_grant", "", Admin),
    (&[51_005], 503, "invalid_grant", "", Transient),
    (&[53_000, 53_001, 53_002, 53_003, 53_004, 530_032, 530_034, 530_035], 400, "invalid_grant", "message_only", Admin),
    (&[53_000, 53_001, 53_002, 53_003, 53_004, 530_032, 530_034, 530_035], 400, "interaction_required", "message_only", Admin),
    (&[53_010, 53_011], 400, "invalid_grant", "", Admin),
    (&[54_005], 400, "invalid_grant", "", RELINK),
    (&[65_001], 400, "invalid_grant", "consent_required", Consent),
    (&[65_001], 400, "invalid_grant", "", Consent),
    (&[65_004], 400, "consent_required", "", Consent),
    (&[65_005, 650_053, 650_057], 401, "invalid_client", "", AppConfig),
    (&[650_053], 400, "invalid_scope", "", AppConfig),
    (&[650_052], 400, "invalid_grant", "", Admin),
    (&[650_054, 650_056], 400, "invalid_request", "", AppConfig),
    (&[70_000], 400, "invalid_grant", "bad_token", RELINK),
    (&[70_001, 700_016], 400, "unauthorized_client", "", AppConfig),
    (&[7_000_112], 400, "unauthorized_client", "", Admin),
    (&[7_000_114, 700_020], 400, "invalid_request", "", AppConfig),
    (&[700_005], 400, "invalid_grant", "", AppConfig),
    (&[70_002], 401, "invalid_client", "", ClientCredential),
    (&[70_003], 400, "unsupported_grant_type", "", AppConfig),
    (&[70_008], 400, "invalid_grant", "", RELINK),
    (&[70_011, 1_002_012], 400, "invalid_scope", "", AppConfig),
    (&[70_043], 400, "invalid_grant", "token_expired", RELINK),
    (&[700_022, 70_022], 400, "invalid_request", "", AppConfig),
    (&[700_025], 401, "invalid_client", "", AppConfig),
    (&[700_054], 400, "invalid_request", "", AppConfig),
    (&[700_082], 400, "invalid_grant", "bad_token", UNMISTAKABLE),
    (&[700_084], 400, "invalid_grant", "", RELINK),
    (&[7_000_215], 401, "invalid_client", "", ClientCredential),
    (&[7_000_218], 401, "invalid_client", "", AppConfig),
    (&[7_000_222], 401, "invalid_client", "", ClientCredential),
    (&[7_000_229], 401, "invalid_client", "", Admin),
    (&[90_002], 400, "invalid_request", "", AppConfig),
    (&[90_002], 400, "invalid_tenant", "", AppConfig),
    (&[90_033], 400, "temporarily_unavailable", "", Transient),
    (&[90_033], 503, "temporarily_unavailable", "", Transient),
    (&[90_006, 90_012, 90_024, 90_090], 400, "invalid_request", "", Transient),
    (&[90_055], 400, "invalid_request", "", Throttled),
    (&[90_013, 90_014, 900_144, 9_002_313], 400, "invalid_request", "", AppConfig),
    (&[9_002_313], 400, "invalid_grant", "", RELINK),
    (&[90_072], 400, "invalid_grant", "", RELINK),
    (&[90_094, 90_095], 400, "interaction_required", "", Consent),
    (&[90_099], 400, "invalid_grant", "", Admin),
    (&[90_124, 90_130, 9_001_023], 400, "invalid_request", "", AppConfig),
    (&[900_971], 400, "invalid_request", "", AppConfig),
    (&[9_002_326, 9_002_327, 9_002_332], 400, "invalid_request", "", AppConfig),
    (&[1_000_031], 400, "invalid_grant", "", Admin),
    // The device flow's answers (70016, 70018, 70019, 70020): asked for nowhere, and condemning nobody.
    (&[70_016, 70_018, 70_019, 70_020], 400, "authorization_pending", "", Unknown),
    // Every suberror of azure.md 1.8, under a code of nobody's table.
    (&[999_999], 400, "invalid_grant", "", RELINK),
    (&[999_999], 400, "invalid_grant", "basic_action", RELINK),
    (&[999_999], 400, "invalid_grant", "additional_action", RELINK),
    (&[999_999], 400, "invalid_grant", "message_only", Admin),
    (&[999_999], 400, "invalid_grant", "consent_required", Consent),
    (&[999_999], 400, "invalid_grant", "user_password_expired", RELINK),
    (&[999_999], 400, "invalid_grant", "bad_token", RELINK),
    (&[999_999], 400, "invalid_grant", "token_expired", RELINK),
    (&[999_999], 400, "invalid_grant", "client_mismatch", Admin),
    (&[999_999], 400, "invalid_grant", "protection_policy_required", Admin),
    (&[999_999], 400, "invalid_grant", "device_authentication_failed", Admin),
    (&[999_999], 401, "invalid_client", "", ClientCredential),
    (&[999_999], 400, "invalid_request", "", AppConfig),
    (&[999_999], 400, "unauthorized_client", "", AppConfig),
    (&[999_999], 400, "invalid_resource", "", Admin),
    (&[999_999], 400, "invalid_scope", "", AppConfig),
    (&[999_999], 400, "interaction_required", "", RELINK),
    (&[999_999], 400, "brand_new", "", Unknown),
    // An outage answers with whatever it likes.
    (&[50_173], 503, "invalid_grant", "bad_token", Transient),
];

/// What the redirect of the sign-in says instead of a code (azure.md 1.3): `error`, AADSTS code, verdict.
#[rustfmt::skip]
const REDIRECTS: &[(&str, u32, Declined)] = &[
    ("access_denied", 65_004, Declined::ByPerson),
    ("consent_required", 65_004, Declined::ByPerson),
    ("access_denied", 0, Declined::ByPerson),
    ("access_denied", 50_020, Declined::Refused(RELINK)),
    ("access_denied", 90_072, Declined::Refused(RELINK)),
    ("access_denied", 650_053, Declined::Refused(AppConfig)),
    ("invalid_scope", 650_053, Declined::Refused(AppConfig)),
    ("invalid_client", 650_057, Declined::Refused(AppConfig)),
    ("invalid_client", 0, Declined::Refused(AppConfig)),
    ("interaction_required", 90_094, Declined::Refused(Consent)),
    ("consent_required", 90_095, Declined::Refused(Consent)),
    ("interaction_required", 0, Declined::Refused(RELINK)),
    ("login_required", 50_058, Declined::Refused(RELINK)),
    ("invalid_request", 0, Declined::Refused(AppConfig)),
    ("unauthorized_client", 0, Declined::Refused(AppConfig)),
    ("unsupported_response_type", 700_054, Declined::Refused(AppConfig)),
    ("invalid_resource", 500_011, Declined::Refused(Admin)),
    ("access_denied", 53_003, Declined::Refused(Admin)),
    ("access_denied", 50_105, Declined::Refused(Admin)),
    ("server_error", 0, Declined::Refused(Transient)),
    ("temporarily_unavailable", 90_033, Declined::Refused(Transient)),
    ("brand_new", 0, Declined::Refused(Unknown)),
];

#[test]
fn every_redirect_gets_its_verdict_and_nothing_of_its_text_is_kept() {
    for &(error, code, expected) in REDIRECTS {
        let description = if code == 0 { "canary".to_owned() } else { format!("AADSTS{code}: canary") };
        let redirect = judge_redirect(error, &description);
        assert_eq!(redirect.declined, expected, "{error} {code}");
        assert_eq!(redirect.code, (code != 0).then_some(code));
        assert!(!format!("{redirect:?}").contains("canary"));
    }
}

fn judged(status: u16, headers: &[(&'static str, &str)], body: &str) -> EntraError {
    judge(Facts::of(&Answer::made(status, headers, body)))
}

#[test]
fn every_row_of_the_table_gets_its_verdict() {
    for &(codes, status, error, suberror, verdict) in TABLE {
        for &code in codes {
            let body = serde_json::json!({
                "error": error, "suberror": suberror, "error_codes": [code],
                "error_description": format!("AADSTS{code}: text"),
            });
            let judged = judged(status, &[], &body.to_string());
            assert_eq!(judged.verdict, verdict, "{code} {error} {suberror} {status}");
            assert_eq!(judged.code, Some(code));
        }
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

/// Azure.md 1.10: who is overloaded means everybody of the tenant, and a loop is one grant's.
#[test]
fn f08_a_wish_to_be_left_alone_is_the_tenants_but_for_a_grant_in_a_loop() {
    let body = r#"{"error":"invalid_grant","error_description":"AADSTS50196: The server terminated"}"#;
    assert_eq!(judged(400, &[("retry-after", "90")], body).wish_of_tenant(), None);
    for status in [429, 503] {
        let told = judged(status, &[("retry-after", "17")], "");
        assert_eq!(told.wish_of_tenant(), Some(Duration::from_secs(17)), "{status}");
    }
    assert_eq!(judged(500, &[], "").wish_of_tenant(), None);
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
