//! What is believed of an answer, and what is saved from one that is not.

use super::*;

const JSON: &[(&str, &str)] = &[("content-type", "application/json; charset=utf-8")];

fn good() -> Value {
    serde_json::json!({
        "token_type": "Bearer", "expires_in": 4512, "ext_expires_in": 4512, "foci": 1,
        "scope": "499b84ac-1321-427f-aa17-267ca6975798/user_impersonation .default",
        "access_token": "the-access", "refresh_token": "the-refresh", "id_token": "the-id",
    })
}

fn good_with(name: &str, value: Value) -> Value {
    let mut body = good();
    body[name] = value;
    body
}

fn read_json(body: &Value) -> Result<Answered, EntraError> {
    read(&Answer::made(200, JSON, &body.to_string()))
}

#[test]
fn a_good_answer_gives_everything() {
    let answered = read(&Answer::made(200, JSON, &format!("\u{feff}{}", good()))).unwrap();
    assert_eq!(answered.access.expose(), "the-access");
    assert_eq!(answered.lifetime, Duration::from_secs(4512));
    assert_eq!(answered.scopes.len(), 2);
    assert_eq!(answered.refresh.unwrap().expose(), "the-refresh");
    assert_eq!(answered.id_token.unwrap().expose(), "the-id");
}

#[test]
fn a26_a_lifetime_may_be_text_and_is_never_more_than_a_day() {
    for (given, seconds) in [
        (serde_json::json!("3600"), 3600),
        (serde_json::json!(" 3600 "), 3600),
        (serde_json::json!(3600.9), 3600),
        (serde_json::json!(1e18), 86_400),
        (serde_json::json!(u64::MAX), 86_400),
        (serde_json::json!(1), 1),
    ] {
        let answered = read_json(&good_with("expires_in", given.clone())).unwrap();
        assert_eq!(answered.lifetime, Duration::from_secs(seconds), "{given}");
    }
}

#[test]
fn a26_an_answer_without_a_usable_token_still_yields_its_refresh_token() {
    for (name, value) in [
        ("expires_in", serde_json::json!(-1)),
        ("expires_in", serde_json::json!(0)),
        ("expires_in", serde_json::json!("NaN")),
        ("expires_in", serde_json::json!("soon")),
        ("expires_in", Value::Null),
        ("token_type", serde_json::json!("mac")),
        ("token_type", Value::Null),
        ("access_token", serde_json::json!("")),
        ("access_token", serde_json::json!("a\r\nb")),
        ("access_token", serde_json::json!(["x"])),
    ] {
        let error = read_json(&good_with(name, value.clone())).unwrap_err();
        assert_eq!(error.verdict, Verdict::Unknown, "{name} {value}");
        assert_eq!(error.rescued.unwrap().expose(), "the-refresh", "{name} {value}");
    }
    let error = read(&Answer::made(200, &[("content-type", "text/plain")], &good().to_string())).unwrap_err();
    assert!(error.rescued.is_some());
}

#[test]
fn a26_a_missing_or_empty_refresh_token_replaces_nothing() {
    for value in [Value::Null, serde_json::json!(""), serde_json::json!(7)] {
        assert!(read_json(&good_with("refresh_token", value)).unwrap().refresh.is_none());
    }
}

#[test]
fn a26_of_duplicate_keys_the_last_counts_and_the_type_is_compared_without_case() {
    let body =
        r#"{"expires_in":1,"expires_in":60,"access_token":"a","token_type":"BEARER","scope":["x","y z"]}"#;
    let answered = read(&Answer::made(200, JSON, body)).unwrap();
    assert_eq!(answered.lifetime, Duration::from_mins(1));
    assert_eq!(answered.scopes, ["x", "y", "z"]);
}

#[test]
fn f09_html_garbage_and_half_an_answer_are_no_answer() {
    for body in ["<html>sign in</html>", "", "[1]", r#"{"access_token":"a","token_t"#] {
        assert_eq!(read(&Answer::made(200, JSON, body)).unwrap_err().verdict, Verdict::Unknown, "{body}");
    }
}

#[test]
fn a_refusal_is_judged() {
    let body = r#"{"error":"invalid_grant","suberror":"bad_token","error_codes":[700082]}"#;
    let error = read(&Answer::made(400, JSON, body)).unwrap_err();
    assert_eq!(error.verdict, Verdict::Relink { unmistakable: true });
}

#[test]
fn each_grant_sends_its_fields_and_always_the_same_scope() {
    let app = App {
        tenant: &"11111111-1111-1111-1111-111111111111".parse().unwrap(),
        client_id: &"22222222-2222-2222-2222-222222222222".parse().unwrap(),
        proof: Proof::Secret(&crate::secret::ClientSecret::new("the~secret".into())),
        scopes: &[],
    };
    let scope = scope_text(app.scopes);
    let token = RefreshToken::new("the-refresh".into());
    let grant = Grant::Refresh(&token);
    let names: Vec<_> = form(&app, &grant, &scope, None).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["grant_type", "refresh_token", "client_id", "scope", "client_secret"]);
    let redirect_uri = "https://a.example/complete/azure_active_directory".parse().unwrap();
    let (code, verifier) = (AuthorizationCode::new("c".into()), PkceVerifier::new("v".into()));
    let grant = Grant::Code { code: &code, verifier: &verifier, redirect_uri: &redirect_uri };
    let fields = form(&app, &grant, &scope, None);
    assert!(fields.contains(&("redirect_uri", "https://a.example/complete/azure_active_directory")));
    assert!(fields.contains(&("code_verifier", "v")));
    assert!(fields.contains(&("scope", scope.as_str())));
}

#[test]
fn an_assertion_stands_in_the_place_of_a_secret() {
    let assertion = ClientAssertion::new("the.signed.one".into());
    let app = App {
        tenant: &"11111111-1111-1111-1111-111111111111".parse().unwrap(),
        client_id: &"22222222-2222-2222-2222-222222222222".parse().unwrap(),
        proof: Proof::Assertion(&assertion),
        scopes: &[],
    };
    let fields = form(&app, &Grant::ClientCredentials, APP_SCOPE, None);
    assert!(fields.contains(&("client_assertion", "the.signed.one")));
    assert!(fields.contains(&("client_assertion_type", ASSERTION_TYPE)));
    assert!(fields.iter().all(|(name, _)| *name != "client_secret"));
}

#[test]
fn narrower_scopes_are_asked_for_by_name() {
    let scopes = ["vso.code".parse().unwrap(), "vso.project".parse().unwrap()];
    let resource = "499b84ac-1321-427f-aa17-267ca6975798";
    assert_eq!(
        scope_text(&scopes),
        format!("{resource}/vso.code {resource}/vso.project offline_access openid profile email")
    );
    assert!(scope_text(&[]).starts_with(&format!("{resource}/user_impersonation offline_access")));
}

#[test]
fn whose_token_it_is_is_read_where_it_can_be() {
    let payload = URL_SAFE_NO_PAD.encode(r#"{"oid":"33333333-3333-3333-3333-333333333333"}"#);
    let read = |text: String| unverified_object_id(&AccessToken::new(text)).map(|id| id.to_string());
    assert_eq!(read(format!("x.{payload}.y")).as_deref(), Some("33333333-3333-3333-3333-333333333333"));
    for odd in ["", "opaque", "x.y.z", "x..z"] {
        assert_eq!(read(odd.to_owned()), None);
    }
}

#[test]
fn a_request_id_has_the_shape_of_a_random_guid() {
    let id = make_random_guid();
    assert!(id.parse::<crate::ids::ObjectId>().is_ok(), "{id}");
    assert_eq!(id.as_bytes()[14], b'4');
    assert_ne!(id, make_random_guid());
}
