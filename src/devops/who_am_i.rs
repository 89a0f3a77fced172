//! `connectionData`: who a token is in an organization (azure.md 3.2).
//!
//! The anonymous identity is nobody, even on a 200.

use serde::Deserialize;
use serde_json::Value;

use super::DevopsError;
use super::answer::ANONYMOUS;
use crate::ids::ObjectId;
use crate::outgoing::shown;

/// An identity as the organization knows it. For people to see, never a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// The sign-in name; for a service principal, which has none, its display name.
    pub login: String,
    pub display_name: String,
    /// Told of service principals alone, and not by every organization.
    pub object_id: Option<ObjectId>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionData {
    authenticated_user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    id: String,
    provider_display_name: Option<String>,
    custom_display_name: Option<String>,
    #[serde(default)]
    properties: Value,
}

pub(super) fn parse(body: &[u8]) -> Result<Member, DevopsError> {
    let data: ConnectionData = serde_json::from_slice(body).map_err(|_| DevopsError::Unparseable)?;
    let user = data.authenticated_user;
    if user.id.eq_ignore_ascii_case(ANONYMOUS) {
        return Err(DevopsError::Unauthenticated);
    }
    let display_name = user.custom_display_name.or(user.provider_display_name).unwrap_or_default();
    let account = user.properties.pointer("/Account/$value").and_then(Value::as_str);
    let login = account.filter(|account| !account.is_empty()).unwrap_or(&display_name);
    let object_id = account.and_then(|account| account.parse().ok());
    Ok(Member { login: shown(login), display_name: shown(&display_name), object_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_user(user: &str) -> Result<Member, DevopsError> {
        parse(format!(r#"{{"authenticatedUser":{user},"instanceId":"x"}}"#).as_bytes())
    }

    #[test]
    fn a_service_user_is_known_by_its_address() {
        let user = r#"{"id":"11111111-1111-1111-1111-111111111111","providerDisplayName":"dbt service",
            "properties":{"Account":{"$type":"System.String","$value":"svc@contoso.com"}}}"#;
        let member =
            Member { login: "svc@contoso.com".into(), display_name: "dbt service".into(), object_id: None };
        assert_eq!(parse_user(user).unwrap(), member);
    }

    #[test]
    fn a_service_principal_is_known_by_its_name() {
        let user = r#"{"id":"11111111-1111-1111-1111-111111111111","providerDisplayName":"app\u0007"}"#;
        assert_eq!(parse_user(user).unwrap().login, "app");
        let user = r#"{"id":"x","providerDisplayName":"app","properties":{"Account":{"$type":"System.String",
            "$value":"22222222-2222-2222-2222-222222222222"}}}"#;
        let object_id = parse_user(user).unwrap().object_id.unwrap();
        assert_eq!(object_id.as_str(), "22222222-2222-2222-2222-222222222222");
    }

    #[test]
    fn nobody_is_not_signed_in_and_nonsense_is_nobody() {
        let anonymous = format!(r#"{{"id":"{}"}}"#, ANONYMOUS.to_uppercase());
        assert!(matches!(parse_user(&anonymous), Err(DevopsError::Unauthenticated)));
        for body in ["", "{}", r#"{"authenticatedUser":{}}"#, "[]"] {
            assert!(matches!(parse(body.as_bytes()), Err(DevopsError::Unparseable)), "{body}");
        }
    }
}
