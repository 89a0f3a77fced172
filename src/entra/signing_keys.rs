//! The keys Entra signs `id_token`s with, per tenant (azure.md 1.2).
//!
//! Held for a day; an unknown key id makes us look again, at most once a minute, so that forged
//! tokens do not turn into load on Entra (test A37). A key id is only ever compared, never part of a
//! URL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use tokio::sync::Mutex as AsyncMutex;
use url::Url;

use super::id_token::IdTokenError;
use crate::clock::Moment;
use crate::ids::TenantId;
use crate::outgoing::{Limits, Outgoing, under};

/// The keys of the tenants in use.
#[derive(Default)]
pub(super) struct SigningKeys {
    tenants: Mutex<HashMap<TenantId, Arc<AsyncMutex<Held>>>>,
}

/// Where a tenant's keys are fetched.
pub(super) struct Source<'a> {
    pub(super) outgoing: &'a Outgoing,
    pub(super) authority: &'a Url,
    pub(super) tenant: &'a TenantId,
    pub(super) issuer: &'a str,
}

/// What is known of one tenant.
#[derive(Default)]
struct Held {
    keys: HashMap<String, DecodingKey>,
    /// When they were fetched, by the clock that never steps.
    fetched_at: Duration,
    asked_at: Duration,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    kid: String,
    n: String,
    e: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    issuer: Option<String>,
}

impl SigningKeys {
    pub(super) async fn find(
        &self,
        source: &Source<'_>,
        key_id: &str,
        now: Moment,
    ) -> Result<DecodingKey, IdTokenError> {
        let tenant = self.tenant(source.tenant);
        // Held over the fetch on purpose: whoever comes meanwhile waits for the same answer, at most
        // for its deadline.
        let mut held = tenant.lock().await;
        if held.is_worth_asking(key_id, now.monotonic) {
            held.asked_at = now.monotonic;
            match fetch(source).await {
                Ok(keys) => (held.keys, held.fetched_at) = (keys, now.monotonic),
                // Keys that were good yesterday are better than no sign-in at all.
                Err(error) if !held.keys.contains_key(key_id) => return Err(error),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "using old signing keys");
                }
            }
        }
        held.keys.get(key_id).cloned().ok_or(IdTokenError::UnknownKey)
    }

    fn tenant(&self, tenant: &TenantId) -> Arc<AsyncMutex<Held>> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if TENANTS_MAX <= tenants.len() && !tenants.contains_key(tenant) {
            tenants.clear();
        }
        Arc::clone(tenants.entry(tenant.clone()).or_default())
    }
}

impl Held {
    fn is_worth_asking(&self, key_id: &str, now: Duration) -> bool {
        let asked_ago = now.saturating_sub(self.asked_at);
        let fetched_ago = now.saturating_sub(self.fetched_at);
        let is_wanting = !self.keys.contains_key(key_id) || KEYS_AGE_MAX <= fetched_ago;
        self.keys.is_empty() || (is_wanting && ASK_AGAIN_AFTER <= asked_ago)
    }
}

async fn fetch(source: &Source<'_>) -> Result<HashMap<String, DecodingKey>, IdTokenError> {
    let url = under(source.authority, &[source.tenant.as_str(), "discovery", "v2.0", "keys"]);
    let request = source.outgoing.get(url).header("accept", "application/json");
    let answer = source.outgoing.send(request, LIMITS).await.map_err(IdTokenError::KeysUnreachable)?;
    if answer.status == 200 && answer.is_json() {
        parse(answer.text_bytes(), source.tenant, source.issuer).ok_or(IdTokenError::KeysUnusable)
    } else {
        Err(IdTokenError::KeysUnusable)
    }
}

/// The RSA signing keys of `issuer`; `None` when there is none. Other keys are passed over, because
/// kinds we do not know may be added any day.
fn parse(body: &[u8], tenant: &TenantId, issuer: &str) -> Option<HashMap<String, DecodingKey>> {
    let document: Document = serde_json::from_slice(body).ok()?;
    let is_ours = |key: &Key| {
        let of_issuer = key
            .issuer
            .as_deref()
            .is_none_or(|claimed_issuer| claimed_issuer.replace("{tenantid}", tenant.as_str()) == issuer);
        key.kty == "RSA" && key.purpose.as_deref().is_none_or(|purpose| purpose == "sig") && of_issuer
    };
    let keys: HashMap<_, _> = document
        .keys
        .into_iter()
        .take(KEYS_MAX)
        .filter_map(|value| serde_json::from_value::<Key>(value).ok())
        .filter(is_ours)
        .filter_map(|key| Some((key.kid, DecodingKey::from_rsa_components(&key.n, &key.e).ok()?)))
        .collect();
    (!keys.is_empty()).then_some(keys)
}

/// A link waits for this; the same as for its token request.
const LIMITS: Limits = Limits { deadline: Duration::from_secs(10), body_bytes_max: 1024 * 1024 };
/// How long Microsoft lets keys be cached.
const KEYS_AGE_MAX: Duration = Duration::from_hours(24);
/// Test A37.
const ASK_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// Entra publishes about ten.
const KEYS_MAX: usize = 100;
/// Keys of this many tenants are a few megabytes; beyond it we begin anew.
const TENANTS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111/v2.0";

    fn key_ids(body: &str) -> Option<Vec<String>> {
        let tenant = "11111111-1111-1111-1111-111111111111".parse().unwrap();
        let mut ids: Vec<_> = parse(body.as_bytes(), &tenant, ISSUER)?.into_keys().collect();
        ids.sort();
        Some(ids)
    }

    #[test]
    fn only_rsa_signing_keys_of_the_tenant_are_taken() {
        let body = format!(
            r#"{{"keys":[
                {{"kty":"RSA","use":"sig","kid":"own","n":"AQAB","e":"AQAB","issuer":"{ISSUER}","x5c":["x"]}},
                {{"kty":"RSA","kid":"template","n":"AQAB","e":"AQAB",
                  "issuer":"https://login.microsoftonline.com/{{tenantid}}/v2.0"}},
                {{"kty":"RSA","kid":"bare","n":"AQAB","e":"AQAB"}},
                {{"kty":"RSA","kid":"foreign","n":"AQAB","e":"AQAB","issuer":"https://evil.example/v2.0"}},
                {{"kty":"RSA","use":"enc","kid":"encrypts","n":"AQAB","e":"AQAB"}},
                {{"kty":"oct","kid":"secret","k":"AQAB"}}, {{"kid":7}}, 7
            ]}}"#
        );
        assert_eq!(key_ids(&body).unwrap(), ["bare", "own", "template"]);
        assert_eq!(key_ids(r#"{"keys":[]}"#), None);
        assert_eq!(key_ids("<html>"), None);
    }

    #[test]
    fn a37_an_unknown_key_makes_us_ask_at_most_once_a_minute() {
        let mut held = Held::default();
        let at = Duration::from_secs;
        assert!(held.is_worth_asking("a", at(5)), "nothing is known yet");
        let key = DecodingKey::from_rsa_components("AQAB", "AQAB").unwrap();
        held = Held { keys: [("a".into(), key)].into(), fetched_at: at(5), asked_at: at(5) };
        assert!(!held.is_worth_asking("a", at(3600)));
        assert!(!held.is_worth_asking("b", at(64)));
        assert!(held.is_worth_asking("b", at(65)));
        assert!(held.is_worth_asking("a", at(5 + 24 * 3600)));
    }
}
