//! A caller: asks for tokens, and keeps for the ledger what it got.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use azdo_broker::client::{Remote, within};
use azdo_broker::clock::{Clock, SystemClock};
use azdo_broker::pb;
use azdo_broker::pb::credential_broker_client::CredentialBrokerClient;
use jiff::Timestamp;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::broker::ACCOUNT;
use crate::ledger::{CALL, Ledger, Released};

#[derive(Clone)]
pub(crate) struct Caller {
    credentials: CredentialBrokerClient<Channel>,
    ledger: Arc<Ledger>,
}

/// What a caller keeps of a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Got {
    pub(crate) fingerprint: String,
}

impl Caller {
    pub(crate) fn over(remote: &Remote, ledger: Arc<Ledger>) -> Self {
        Self { credentials: remote.credentials(), ledger }
    }

    /// A token of the developer `u{connection}` that lasts.
    pub(crate) async fn token(&self, connection: usize, min_ttl: Duration) -> Result<Got, Status> {
        let (call, sent) = (self.ledger.begin(), now());
        let request = pb::GetDeveloperTokenRequest {
            account_id: ACCOUNT.into(),
            developer_id: developer_id(connection),
            min_ttl: min_ttl.try_into().ok(),
            purpose: format!("{CALL}{call}"),
            ..pb::GetDeveloperTokenRequest::default()
        };
        let mut credentials = self.credentials.clone();
        let answer = credentials.get_developer_token(within(CALL_WITHIN, request)).await?.into_inner();
        let fingerprint = fingerprint(&answer.access_token);
        let expires_at = answer.expires_at.unwrap_or_default();
        self.ledger.end(Released {
            call,
            connection,
            sent,
            got: now(),
            min_ttl,
            fingerprint: fingerprint.clone(),
            expires_at: Timestamp::new(expires_at.seconds, expires_at.nanos).unwrap_or_default(),
            object_id: answer.identity.unwrap_or_default().object_id,
        });
        Ok(Got { fingerprint })
    }
}

pub(crate) fn developer(connection: usize) -> pb::ConnectionName {
    pb::ConnectionName { role: pb::Role::Developer.into(), developer_id: developer_id(connection) }
}

pub(crate) fn developer_id(connection: usize) -> String {
    format!("u{connection}")
}

/// The reason in a refusal's details; empty if it has none.
pub(crate) fn reason_of(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

pub(crate) fn now() -> Timestamp {
    SystemClock::default().now().wall
}

/// The first 16 bytes of SHA-256, in hex.
fn fingerprint(token: &str) -> String {
    use std::fmt::Write as _;
    let hash = digest(&SHA256, token.as_bytes());
    hash.as_ref()[..16].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const CALL_WITHIN: Duration = Duration::from_secs(15);
