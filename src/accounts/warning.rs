//! What of an account's client credentials soon may fail: told with every answer that rests on them.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::between;
use crate::reason::Warning;
use crate::vault::{ClientCredential, Integration};

/// What soon may stop the whole account: the last credential in force runs out, or none is left.
pub fn warnings_of(integration: &Integration, now: Timestamp) -> Vec<Warning> {
    let in_force: Vec<&ClientCredential> =
        integration.credentials.iter().filter(|one| one.is_in_force(now)).collect();
    let mut warnings = Vec::new();
    if in_force.is_empty() {
        warnings.push(Warning {
            code: "CLIENT_CREDENTIAL_REJECTED",
            text: "no client credential is in force: each has expired or Entra rejects it".to_owned(),
        });
    } else if in_force.iter().all(|one| one.expires_at.is_some()) {
        let last = in_force.iter().max_by_key(|one| one.expires_at);
        warnings.extend(last.and_then(|last| expires(last, now)));
    }
    warnings
}

/// What is to be said of one credential.
pub fn warnings_of_credential(credential: &ClientCredential, now: Timestamp) -> Vec<Warning> {
    if credential.has_expired(now) {
        let text = format!("the {} has expired: remove it", credential.kind());
        return vec![Warning { code: "CLIENT_CREDENTIAL_EXPIRED", text }];
    }
    let rejected = credential.rejected_at.map(|at| Warning {
        code: "CLIENT_CREDENTIAL_REJECTED",
        text: format!("Entra rejected the {} at {at:.0}", credential.kind()),
    });
    rejected.into_iter().chain(expires(credential, now)).collect()
}

/// What is to be said of a grant that nobody could refresh for long.
pub fn warning_of_grant(expires_by: Timestamp, now: Timestamp) -> Option<Warning> {
    let left = between(now, expires_by);
    (left < WARN_BEFORE_EXPIRY).then(|| Warning {
        code: "GRANT_EXPIRES",
        text: if left.is_zero() {
            "Entra has let the grant die of idleness: link the connection again".to_owned()
        } else {
            let days = left.as_secs() / DAY.as_secs();
            format!(
                "Entra lets the grant die in {days} days unless a refresh succeeds: mend what makes it fail"
            )
        },
    })
}

fn expires(credential: &ClientCredential, now: Timestamp) -> Option<Warning> {
    let left = credential.expires_at.map(|at| between(now, at)).filter(|left| *left < WARN_BEFORE_EXPIRY)?;
    let text = format!("the {} expires in {} days", credential.kind(), left.as_secs() / DAY.as_secs());
    Some(Warning { code: "CLIENT_CREDENTIAL_EXPIRES", text })
}

pub(super) const DAY: Duration = Duration::from_hours(24);
/// Time enough for a person to make a new secret before anything stops.
pub(super) const WARN_BEFORE_EXPIRY: Duration = Duration::from_hours(24 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{earlier, later};
    use crate::secret::ClientSecret;
    use crate::vault::Means;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn secret(expires_in_days: Option<u64>) -> ClientCredential {
        let expires_at = expires_in_days.map(|days| later(now(), DAY * u32::try_from(days).unwrap()));
        ClientCredential::new(
            "one".parse().unwrap(),
            Means::secret(ClientSecret::new("x".into())),
            now(),
            expires_at,
        )
    }

    fn codes(credentials: Vec<ClientCredential>) -> Vec<&'static str> {
        let guid = "10000000-0000-4000-a000-000000000001";
        let integration = Integration {
            account: "acme".parse().unwrap(),
            version: 1,
            organization: "contoso".parse().unwrap(),
            tenant: guid.parse().unwrap(),
            client_id: guid.parse().unwrap(),
            public_url: "https://p.example".parse().unwrap(),
            headless: crate::connection::HeadlessIdentity::ServiceUser,
            scopes: Vec::new(),
            suspension: None,
            created_at: now(),
            updated_at: now(),
            credentials,
        };
        warnings_of(&integration, now()).into_iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn an_account_is_warned_when_its_last_credential_runs_out_and_not_before() {
        assert_eq!(codes(vec![secret(Some(12))]), ["CLIENT_CREDENTIAL_EXPIRES"]);
        assert!(codes(vec![secret(Some(12)), secret(Some(90))]).is_empty(), "another lasts");
        assert!(codes(vec![secret(Some(12)), secret(None)]).is_empty(), "another does not say");
        let rejected = ClientCredential { rejected_at: Some(now()), ..secret(Some(90)) };
        assert_eq!(codes(vec![secret(Some(12)), rejected.clone()]), ["CLIENT_CREDENTIAL_EXPIRES"]);
        assert_eq!(codes(vec![rejected]), ["CLIENT_CREDENTIAL_REJECTED"]);
    }

    #[test]
    fn a_credential_says_what_is_the_matter_with_it() {
        assert!(warnings_of_credential(&secret(None), now()).is_empty());
        let expired = ClientCredential { expires_at: Some(earlier(now(), DAY)), ..secret(None) };
        let warnings = warnings_of_credential(&expired, now());
        assert_eq!((warnings.len(), warnings[0].code), (1, "CLIENT_CREDENTIAL_EXPIRED"));
        assert!(warnings_of_credential(&secret(Some(12)), now())[0].text.contains("12 days"));
    }
}
