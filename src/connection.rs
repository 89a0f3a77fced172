//! Which identity of which account: the key of the store, of the token slots and of the audit.

use std::fmt;

use jiff::Timestamp;

use crate::ids::{AccountId, DeveloperId, Generation, ObjectId, TenantId};
use crate::reason::{Actor, Problem, Reason};
use crate::remedy::Case;

/// What a connection is for. Names never cross roles: a service user's code cannot complete a
/// developer's link (threat T03).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    ServiceUser,
    ServicePrincipal,
    Developer(DeveloperId),
}

/// Names one connection.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionKey {
    pub account: AccountId,
    pub role: Role,
}

/// Who a connection is in Entra. `(tenant, object_id)` is the identity; the rest is for people.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Identity {
    pub tenant: TenantId,
    pub object_id: ObjectId,
    /// The sign-in name, mostly an e-mail address. Mutable, never a key (threat T17).
    pub login: String,
    pub display_name: String,
}

/// Which connection answers for the account when no developer is named.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadlessIdentity {
    #[default]
    ServiceUser,
    ServicePrincipal,
}

/// What stands in a connection's way, as its row remembers it.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Failure {
    pub reason: Reason,
    /// The last diagnostic code of Entra, such as 50173; for people, never for decisions.
    pub code: Option<u32>,
    pub since: Timestamp,
    pub count: u32,
    /// Nothing but a person's act helps: a refused grant was refused again, or unmistakably.
    #[serde(default)]
    pub needs_person: bool,
    /// When Entra first refused the grant, whatever else failed since: a second refusal is believed. A commit
    /// forgets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_at: Option<Timestamp>,
    /// The answer with the next grant did not arrive, where each grant works once: the grant is lost with
    /// it. Written before Entra is asked, so that it holds if the process dies meanwhile.
    #[serde(default)]
    pub lost: bool,
    /// What is in the way, where neither reason nor code tells whose act helps.
    #[serde(default)]
    pub case: Option<Case>,
}

/// A link or a disconnect: what the store must not fall back behind once somebody saw it.
#[derive(
    Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize,
)]
pub struct Seen {
    pub generation: Generation,
    /// A disconnect.
    pub is_end: bool,
}

impl Seen {
    pub fn link(generation: Generation) -> Self {
        Self { generation, is_end: false }
    }

    pub fn end(generation: Generation) -> Self {
        Self { generation, is_end: true }
    }
}

/// What happened to a connection, as its watchers are told.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Change {
    /// Linked, connected, imported or proven, for the first time or anew.
    Connected,
    Refreshed,
    /// Began to fail, or fails for another reason.
    Failing,
    Recovered,
    /// A person must link again.
    NeedsRelink,
    /// Ended by a person, or because an import proved to be somebody else's.
    Disconnected,
}

impl Change {
    pub const ALL: [Self; 6] = [
        Self::Connected,
        Self::Refreshed,
        Self::Failing,
        Self::Recovered,
        Self::NeedsRelink,
        Self::Disconnected,
    ];

    /// Its text in a store's outbox.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Refreshed => "refreshed",
            Self::Failing => "failing",
            Self::Recovered => "recovered",
            Self::NeedsRelink => "needs_relink",
            Self::Disconnected => "disconnected",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.as_str() == text)
    }
}

impl Failure {
    /// The first of its kind, which anybody may mend.
    pub fn new(reason: Reason, since: Timestamp) -> Self {
        Self {
            reason,
            code: None,
            since,
            count: 1,
            needs_person: false,
            refused_at: None,
            lost: false,
            case: None,
        }
    }

    /// The grant went with an answer that did not arrive.
    pub fn lost(since: Timestamp) -> Self {
        Self { needs_person: true, lost: true, ..Self::new(Reason::RelinkRequired, since) }
    }

    /// Who must act in this very case.
    pub fn who_acts(&self) -> Actor {
        self.case.map_or_else(|| self.reason.who_acts(), Case::who_acts)
    }

    /// Who must do what, as one sentence.
    pub fn what_to_do(&self) -> &'static str {
        if self.lost {
            return crate::remedy::GRANT_LOST;
        }
        let known = self.case.map(Case::what_to_do).or_else(|| self.code.and_then(crate::remedy::of));
        known.unwrap_or_else(|| self.reason.what_to_do())
    }
}

impl Role {
    /// The text of the role in store keys, audit and logs: `service_user`, `developer/ana`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "service_user" => Some(Self::ServiceUser),
            "service_principal" => Some(Self::ServicePrincipal),
            _ => text.strip_prefix("developer/")?.parse().ok().map(Self::Developer),
        }
    }

    /// The name of the kind alone, for metrics and messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ServiceUser => "service user",
            Self::ServicePrincipal => "service principal",
            Self::Developer(_) => "developer",
        }
    }
}

impl ConnectionKey {
    /// Nobody stands there. Who is to connect the app is not who links people.
    pub fn not_linked(&self, how: &str) -> Problem {
        let detail = format!("the account's {} {how}", self.role.kind());
        let case = (self.role == Role::ServicePrincipal).then_some(Case::NoServicePrincipal);
        Problem::new(Reason::NotLinked, detail).case(case)
    }
}

impl From<HeadlessIdentity> for Role {
    fn from(identity: HeadlessIdentity) -> Self {
        match identity {
            HeadlessIdentity::ServiceUser => Self::ServiceUser,
            HeadlessIdentity::ServicePrincipal => Self::ServicePrincipal,
        }
    }
}

impl Identity {
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.tenant == other.tenant && self.object_id == other.object_id
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceUser => f.write_str("service_user"),
            Self::ServicePrincipal => f.write_str("service_principal"),
            Self::Developer(developer) => write!(f, "developer/{developer}"),
        }
    }
}

impl fmt::Display for ConnectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_survives_its_text() {
        for role in
            [Role::ServiceUser, Role::ServicePrincipal, Role::Developer("ana@acme.example".parse().unwrap())]
        {
            assert_eq!(Role::parse(&role.to_string()), Some(role));
        }
        assert_eq!(Role::parse("developer/"), None);
        assert_eq!(Role::parse("developer/a/b"), None);
    }

    #[test]
    fn a_change_survives_its_text() {
        for change in Change::ALL {
            assert_eq!(Change::parse(change.as_str()), Some(change));
        }
        assert_eq!(Change::parse("erased"), None);
    }
}
