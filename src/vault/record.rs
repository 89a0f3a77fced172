//! What stands inside a sealed record: the one place where secrets are written as text.
//!
//! The forms below are JSON; a field that is new in a later version has a default. They borrow the
//! secrets when writing and own them when reading, and the buffers are wiped.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::connection::{Connection, Ended, Held, Imported, Live, StoredToken};
use super::links::{Front, Link, LinkEnd, LinkPhase, LinkSecrets, Replaced};
use crate::caller::Caller;
use crate::clock::later;
use crate::connection::{ConnectionKey, Identity, Seen};
use crate::ids::{ClientId, Generation, Label, LinkId, ObjectId};
use crate::reason::Reason;
use crate::secret::{AccessToken, PkceVerifier, RawIdToken, RefreshToken};

pub(super) fn write(form: &impl Serialize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(serde_json::to_vec(form).expect("the forms have string keys and no failing parts"))
}

pub(super) fn read<T: DeserializeOwned>(plain: &[u8]) -> Option<T> {
    serde_json::from_slice(plain).ok()
}

#[derive(Deserialize, Serialize)]
pub(super) struct ConnectionRecord<'a> {
    /// When who stands there came: a refresh does not change it. Records of the first versions do not say.
    #[serde(default)]
    pub(super) since: Option<Generation>,
    /// The link or disconnect that it is of before, by who saw that: for those who did not.
    #[serde(default)]
    pub(super) behind: Option<Seen>,
    #[serde(flatten)]
    pub(super) form: ConnectionForm<'a>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub(super) enum ConnectionForm<'a> {
    Live {
        identity: Cow<'a, Identity>,
        grant: Option<Cow<'a, str>>,
        token: Option<TokenForm<'a>>,
        linked_at: Timestamp,
        linked_by: Option<Label>,
        refreshed_at: Option<Timestamp>,
        #[serde(default)]
        origin: Option<Cow<'a, str>>,
    },
    Imported {
        grant: Cow<'a, str>,
        origin: Cow<'a, str>,
        expected_object_id: Option<ObjectId>,
        imported_at: Timestamp,
        imported_by: Option<Label>,
        last_used_at: Option<Timestamp>,
        held_token: Option<TokenForm<'a>>,
        held_id_token: Option<Cow<'a, str>>,
    },
    Ended {
        at: Timestamp,
        identity: Option<Cow<'a, Identity>>,
        #[serde(default)]
        because: Option<Reason>,
        #[serde(default)]
        origin: Option<Cow<'a, str>>,
    },
}

impl ConnectionForm<'_> {
    /// Whether it is anything but a tombstone.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::Ended { .. })
    }

    /// When Entra lets the grant die of idleness, unless it is refreshed before (azure.md 2.2).
    pub(super) fn grant_expires_by(&self) -> Option<Timestamp> {
        let last_used = match self {
            Self::Live { grant, linked_at, refreshed_at, .. } => {
                grant.as_ref().map(|_| refreshed_at.unwrap_or(*linked_at))
            }
            Self::Imported { imported_at, last_used_at, .. } => Some(last_used_at.unwrap_or(*imported_at)),
            Self::Ended { .. } => None,
        };
        last_used.map(|last_used| later(last_used, GRANT_IDLE_MAX))
    }
}

#[derive(Deserialize, Serialize)]
pub(super) struct TokenForm<'a> {
    access: Cow<'a, str>,
    expires_at: Timestamp,
    lifetime_s: u64,
    scopes: Cow<'a, [String]>,
}

impl<'a> From<&'a Connection> for ConnectionForm<'a> {
    fn from(connection: &'a Connection) -> Self {
        match connection {
            Connection::Live(live) => Self::from(live),
            Connection::Imported(imported) => Self::from(imported),
            Connection::Ended(ended) => Self::Ended {
                at: ended.at,
                identity: ended.identity.as_ref().map(Cow::Borrowed),
                because: ended.because,
                origin: ended.origin.as_deref().map(Cow::Borrowed),
            },
        }
    }
}

impl<'a> From<&'a Live> for ConnectionForm<'a> {
    fn from(live: &'a Live) -> Self {
        Self::Live {
            identity: Cow::Borrowed(&live.identity),
            grant: live.grant.as_ref().map(|grant| grant.expose().into()),
            token: live.token.as_ref().map(TokenForm::from),
            linked_at: live.linked_at,
            linked_by: live.linked_by.clone(),
            refreshed_at: live.refreshed_at,
            origin: live.origin.as_deref().map(Cow::Borrowed),
        }
    }
}

impl<'a> From<&'a Imported> for ConnectionForm<'a> {
    fn from(imported: &'a Imported) -> Self {
        let held = imported.held.as_ref();
        let id_token = held.and_then(|held| held.unverified_id_token.as_ref());
        Self::Imported {
            grant: imported.grant.expose().into(),
            origin: imported.origin.as_str().into(),
            expected_object_id: imported.expected_object_id.clone(),
            imported_at: imported.imported_at,
            imported_by: imported.imported_by.clone(),
            last_used_at: imported.last_used_at,
            held_token: held.map(|held| TokenForm::from(&held.token)),
            held_id_token: id_token.map(|token| token.expose().into()),
        }
    }
}

impl From<ConnectionForm<'_>> for Connection {
    fn from(form: ConnectionForm<'_>) -> Self {
        match form {
            ConnectionForm::Live { identity, grant, token, linked_at, linked_by, refreshed_at, origin } => {
                Self::Live(Live {
                    identity: identity.into_owned(),
                    grant: grant.map(|grant| RefreshToken::new(grant.into_owned())),
                    token: token.map(StoredToken::from),
                    linked_at,
                    linked_by,
                    refreshed_at,
                    origin: origin.map(Cow::into_owned),
                })
            }
            ConnectionForm::Imported {
                grant,
                origin,
                expected_object_id,
                imported_at,
                imported_by,
                last_used_at,
                held_token,
                held_id_token,
            } => Self::Imported(Imported {
                grant: RefreshToken::new(grant.into_owned()),
                origin: origin.into_owned(),
                expected_object_id,
                imported_at,
                imported_by,
                last_used_at,
                held: held_token.map(|token| Held {
                    token: StoredToken::from(token),
                    unverified_id_token: held_id_token.map(|token| RawIdToken::new(token.into_owned())),
                }),
            }),
            ConnectionForm::Ended { at, identity, because, origin } => Self::Ended(Ended {
                at,
                identity: identity.map(Cow::into_owned),
                because,
                origin: origin.map(Cow::into_owned),
            }),
        }
    }
}

impl<'a> From<&'a StoredToken> for TokenForm<'a> {
    fn from(token: &'a StoredToken) -> Self {
        Self {
            access: token.access.expose().into(),
            expires_at: token.expires_at,
            lifetime_s: token.lifetime.as_secs(),
            scopes: Cow::Borrowed(&token.scopes),
        }
    }
}

impl From<TokenForm<'_>> for StoredToken {
    fn from(form: TokenForm<'_>) -> Self {
        Self {
            access: AccessToken::new(form.access.into_owned()),
            expires_at: form.expires_at,
            lifetime: Duration::from_secs(form.lifetime_s),
            scopes: form.scopes.into_owned(),
        }
    }
}

#[derive(Deserialize, Serialize)]
pub(super) struct LinkForm<'a> {
    expires_at: Timestamp,
    phase: LinkPhase,
    #[serde(default)]
    front: Front,
    begun_by: Caller,
    actor: Option<Label>,
    expected_login: Option<Cow<'a, str>>,
    client_id: ClientId,
    redirect_uri: Cow<'a, url::Url>,
    #[serde(default)]
    return_to: Option<Cow<'a, url::Url>>,
    state_hash: Cow<'a, str>,
    secrets: Option<LinkSecretsForm<'a>>,
    identity: Option<Cow<'a, Identity>>,
    replaces: Option<Cow<'a, Replaced>>,
    ended: Option<Cow<'a, LinkEnd>>,
}

#[derive(Deserialize, Serialize)]
struct LinkSecretsForm<'a> {
    state: Cow<'a, str>,
    nonce: Cow<'a, str>,
    verifier: Cow<'a, str>,
    cookie_hash: Option<Cow<'a, str>>,
    #[serde(default)]
    confirmation_hash: Option<Cow<'a, str>>,
    grant: Option<Cow<'a, str>>,
    token: Option<TokenForm<'a>>,
    id_token: Option<Cow<'a, str>>,
}

impl<'a> From<&'a Link> for LinkForm<'a> {
    fn from(link: &'a Link) -> Self {
        Self {
            expires_at: link.expires_at,
            phase: link.phase,
            front: link.front,
            begun_by: link.begun_by.clone(),
            actor: link.actor.clone(),
            expected_login: link.expected_login.as_deref().map(Cow::Borrowed),
            client_id: link.client_id.clone(),
            redirect_uri: Cow::Borrowed(&link.redirect_uri),
            return_to: link.return_to.as_ref().map(Cow::Borrowed),
            state_hash: link.state_hash.as_str().into(),
            secrets: link.secrets.as_ref().map(|secrets| LinkSecretsForm {
                state: secrets.state.as_str().into(),
                nonce: secrets.nonce.as_str().into(),
                verifier: secrets.verifier.expose().into(),
                cookie_hash: secrets.cookie_hash.as_deref().map(Cow::Borrowed),
                confirmation_hash: secrets.confirmation_hash.as_deref().map(Cow::Borrowed),
                grant: secrets.grant.as_ref().map(|grant| grant.expose().into()),
                token: secrets.token.as_ref().map(TokenForm::from),
                id_token: secrets.unverified_id_token.as_ref().map(|token| token.expose().into()),
            }),
            identity: link.identity.as_ref().map(Cow::Borrowed),
            replaces: link.replaces.as_ref().map(Cow::Borrowed),
            ended: link.ended.as_ref().map(Cow::Borrowed),
        }
    }
}

impl LinkForm<'_> {
    pub(super) fn into_link(self, id: LinkId, key: ConnectionKey) -> Link {
        Link {
            id,
            key,
            expires_at: self.expires_at,
            phase: self.phase,
            front: self.front,
            begun_by: self.begun_by,
            actor: self.actor,
            expected_login: self.expected_login.map(Cow::into_owned),
            client_id: self.client_id,
            redirect_uri: self.redirect_uri.into_owned(),
            return_to: self.return_to.map(Cow::into_owned),
            state_hash: self.state_hash.into_owned(),
            secrets: self.secrets.map(|secrets| LinkSecrets {
                state: secrets.state.into_owned(),
                nonce: secrets.nonce.into_owned(),
                verifier: PkceVerifier::new(secrets.verifier.into_owned()),
                cookie_hash: secrets.cookie_hash.map(Cow::into_owned),
                confirmation_hash: secrets.confirmation_hash.map(Cow::into_owned),
                grant: secrets.grant.map(|grant| RefreshToken::new(grant.into_owned())),
                token: secrets.token.map(StoredToken::from),
                unverified_id_token: secrets.id_token.map(|token| RawIdToken::new(token.into_owned())),
            }),
            identity: self.identity.map(Cow::into_owned),
            replaces: self.replaces.map(Cow::into_owned),
            ended: self.ended.map(Cow::into_owned),
        }
    }
}

/// Refresh tokens of a web app die after 90 days without use.
const GRANT_IDLE_MAX: Duration = Duration::from_hours(90 * 24);
