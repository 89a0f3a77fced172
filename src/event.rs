//! What the audit records: who asked what of whom, and what came of it.
//!
//! An event holds names, never secrets: tokens appear as fingerprints only (P1).

use jiff::Timestamp;

use crate::caller::Caller;
use crate::connection::{ConnectionKey, Role};
use crate::ids::{AccountId, CredentialId, Generation, Label, LinkId, ObjectId, StoreId};
use crate::secret::Fingerprint;

/// One line of the audit.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Event {
    /// The method or the act: `GetServiceUserToken`, `link.page`.
    pub act: &'static str,
    pub by: By,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "role_text")]
    pub role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Whose generation it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_id: Option<ObjectId>,
    /// The client credential that was added or removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialId>,
    pub outcome: Outcome,
}

/// Who did it.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    Caller(Caller),
    /// A browser on our link pages, known by nothing but its cookie.
    Browser,
    /// The broker's own tasks.
    Broker,
}

/// What came of it.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Outcome {
    Denied,
    Done,
    Refused {
        reason: &'static str,
    },
    /// An access token left.
    Released {
        fingerprint: Fingerprint,
        expires_at: Timestamp,
    },
}

impl Event {
    pub fn new(act: &'static str, by: By, outcome: Outcome) -> Self {
        Self {
            act,
            by,
            actor: None,
            purpose: None,
            account: None,
            role: None,
            generation: None,
            store: None,
            link: None,
            object_id: None,
            credential: None,
            outcome,
        }
    }

    #[must_use]
    pub fn about(mut self, key: &ConnectionKey) -> Self {
        self.account = Some(key.account.clone());
        self.role = Some(key.role.clone());
        self
    }
}

#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
fn role_text<S: serde::Serializer>(role: &Option<Role>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(role.as_ref().expect("skipped when there is none"))
}
