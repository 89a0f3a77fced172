//! Why a wish was refused, who can mend it, and how: the vocabulary of every face (P10).
//!
//! Faces translate: gRPC into a status with details, pages into a sentence, the command line into
//! both. The table stands in the proto too; a test compares them.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::ids::InvalidName;
use crate::remedy::Case;

/// A reason as the proto names it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    AdminActionRequired,
    AuditUnavailable,
    ClientCredentialRejected,
    ConsentRequired,
    DeveloperAssertionRejected,
    DeveloperAssertionRequired,
    IntegrationMisconfigured,
    KeysUnavailable,
    LinkExpired,
    LinkMismatch,
    MinTtlTooLong,
    NotAMember,
    NotLinked,
    OrganizationMismatch,
    RateLimited,
    RecordDamaged,
    RelinkRequired,
    RollbackSuspected,
    ShuttingDown,
    SnapshotGone,
    StoreUnavailable,
    Suspended,
    UpstreamThrottled,
    UpstreamUnavailable,
}

/// What kind of answer a reason is, free of any transport.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// The state of things forbids it until somebody acts.
    Precondition,
    /// Not for this caller or this URL.
    Permission,
    /// It changed meanwhile: look again, then repeat.
    Aborted,
    /// Data is damaged.
    DataLoss,
    /// Waiting helps.
    Unavailable,
    /// Asking less often helps.
    Exhausted,
}

/// Who must act.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Actor {
    /// The caller's own code or person: ask again, differently or later.
    Caller,
    /// The person whose connection it is.
    LinkedPerson,
    /// An administrator of the customer's Entra tenant or Azure DevOps organization.
    CustomerAdmin,
    /// Whoever registers integrations on the platform.
    PlatformAdmin,
    /// Whoever runs the broker.
    Operator,
}

/// A reason with what there is to say about this case.
///
/// `detail` is written for the caller: our own words, never an upstream's text or a cause.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Problem {
    pub reason: Reason,
    pub detail: Cow<'static, str>,
    pub retry_after: Option<Duration>,
    /// Facts for programs, such as `longest_ttl_s`.
    pub facts: Vec<(&'static str, String)>,
    /// What to do in this very case, where more is known than the reason.
    pub remedy: Option<&'static str>,
    /// The same, where it is for somebody else than the reason says, or must be remembered.
    pub case: Option<Case>,
}

/// Why a use case did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// Forbidden and unknown are one answer, so that nothing is learnt from it (P2).
    #[error("the policy does not allow this")]
    Denied,
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: Cow<'static, str> },
    /// The thing asked about does not exist, for a caller who may know.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The state of things forbids it, in a way that has no reason of its own.
    #[error("{0}")]
    Precondition(Cow<'static, str>),
    #[error(transparent)]
    Problem(#[from] Problem),
}

/// What does not fail this call but soon may fail another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Warning {
    pub code: &'static str,
    pub text: String,
}

impl Reason {
    pub const ALL: [Self; 24] = [
        Self::AdminActionRequired,
        Self::AuditUnavailable,
        Self::ClientCredentialRejected,
        Self::ConsentRequired,
        Self::DeveloperAssertionRejected,
        Self::DeveloperAssertionRequired,
        Self::IntegrationMisconfigured,
        Self::KeysUnavailable,
        Self::LinkExpired,
        Self::LinkMismatch,
        Self::MinTtlTooLong,
        Self::NotAMember,
        Self::NotLinked,
        Self::OrganizationMismatch,
        Self::RateLimited,
        Self::RecordDamaged,
        Self::RelinkRequired,
        Self::RollbackSuspected,
        Self::ShuttingDown,
        Self::SnapshotGone,
        Self::StoreUnavailable,
        Self::Suspended,
        Self::UpstreamThrottled,
        Self::UpstreamUnavailable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::AdminActionRequired => "ADMIN_ACTION_REQUIRED",
            Self::AuditUnavailable => "AUDIT_UNAVAILABLE",
            Self::ClientCredentialRejected => "CLIENT_CREDENTIAL_REJECTED",
            Self::ConsentRequired => "CONSENT_REQUIRED",
            Self::DeveloperAssertionRejected => "DEVELOPER_ASSERTION_REJECTED",
            Self::DeveloperAssertionRequired => "DEVELOPER_ASSERTION_REQUIRED",
            Self::IntegrationMisconfigured => "INTEGRATION_MISCONFIGURED",
            Self::KeysUnavailable => "KEYS_UNAVAILABLE",
            Self::LinkExpired => "LINK_EXPIRED",
            Self::LinkMismatch => "LINK_MISMATCH",
            Self::MinTtlTooLong => "MIN_TTL_TOO_LONG",
            Self::NotAMember => "NOT_A_MEMBER",
            Self::NotLinked => "NOT_LINKED",
            Self::OrganizationMismatch => "ORGANIZATION_MISMATCH",
            Self::RateLimited => "RATE_LIMITED",
            Self::RecordDamaged => "RECORD_DAMAGED",
            Self::RelinkRequired => "RELINK_REQUIRED",
            Self::RollbackSuspected => "ROLLBACK_SUSPECTED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::SnapshotGone => "SNAPSHOT_GONE",
            Self::StoreUnavailable => "STORE_UNAVAILABLE",
            Self::Suspended => "SUSPENDED",
            Self::UpstreamThrottled => "UPSTREAM_THROTTLED",
            Self::UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
        }
    }

    pub fn class(self) -> Class {
        match self {
            Self::AdminActionRequired
            | Self::ClientCredentialRejected
            | Self::ConsentRequired
            | Self::IntegrationMisconfigured
            | Self::LinkExpired
            | Self::MinTtlTooLong
            | Self::NotAMember
            | Self::NotLinked
            | Self::RelinkRequired
            | Self::RollbackSuspected
            | Self::Suspended => Class::Precondition,
            Self::DeveloperAssertionRejected
            | Self::DeveloperAssertionRequired
            | Self::OrganizationMismatch => Class::Permission,
            Self::LinkMismatch | Self::SnapshotGone => Class::Aborted,
            Self::RecordDamaged => Class::DataLoss,
            Self::AuditUnavailable
            | Self::KeysUnavailable
            | Self::ShuttingDown
            | Self::StoreUnavailable
            | Self::UpstreamThrottled
            | Self::UpstreamUnavailable => Class::Unavailable,
            Self::RateLimited => Class::Exhausted,
        }
    }

    pub fn who_acts(self) -> Actor {
        match self {
            Self::RelinkRequired => Actor::LinkedPerson,
            Self::AdminActionRequired | Self::ConsentRequired | Self::NotAMember => Actor::CustomerAdmin,
            Self::ClientCredentialRejected | Self::IntegrationMisconfigured | Self::Suspended => {
                Actor::PlatformAdmin
            }
            Self::AuditUnavailable
            | Self::KeysUnavailable
            | Self::RecordDamaged
            | Self::RollbackSuspected
            | Self::StoreUnavailable => Actor::Operator,
            Self::DeveloperAssertionRejected
            | Self::DeveloperAssertionRequired
            | Self::LinkExpired
            | Self::LinkMismatch
            | Self::MinTtlTooLong
            | Self::NotLinked
            | Self::OrganizationMismatch
            | Self::RateLimited
            | Self::ShuttingDown
            | Self::SnapshotGone
            | Self::UpstreamThrottled
            | Self::UpstreamUnavailable => Actor::Caller,
        }
    }

    /// What that somebody must do, as one sentence.
    pub fn what_to_do(self) -> &'static str {
        match self {
            Self::AdminActionRequired => {
                "An administrator of the customer's Entra tenant must allow the sign-in (account, Conditional Access, assignment); it resumes by itself."
            }
            Self::AuditUnavailable => {
                "The operator must make the audit file writable; nothing is released unrecorded."
            }
            Self::ClientCredentialRejected => {
                "Whoever registered the integration must enter a valid client secret; links stay and resume by themselves."
            }
            Self::ConsentRequired => {
                "An Entra administrator must consent to the app, then everything resumes by itself."
            }
            Self::DeveloperAssertionRejected => "The caller must send a fresh assertion for this developer.",
            Self::DeveloperAssertionRequired => "The caller must send the developer's assertion.",
            Self::IntegrationMisconfigured => {
                "Whoever registered the integration must correct tenant id, client id, permissions or redirect URIs."
            }
            Self::KeysUnavailable => "The operator must make the key provider reachable.",
            Self::LinkExpired => "Begin the link again.",
            Self::LinkMismatch => "Look at the link again and confirm what it shows now.",
            Self::MinTtlTooLong => {
                "Ask for a shorter min_ttl; `longest_ttl_s` tells the longest that can be had."
            }
            Self::NotAMember => {
                "An administrator of the Azure DevOps organization must add this identity as a user with at least Basic access."
            }
            Self::NotLinked => "Link the connection first.",
            Self::OrganizationMismatch => {
                "Ask only for URLs of the organization this account is integrated with."
            }
            Self::RateLimited => "Ask less often.",
            Self::RecordDamaged => {
                "The operator must restore this record from a backup, or the connection must be linked again."
            }
            Self::RelinkRequired => "The person must link again: Entra no longer accepts the grant.",
            Self::RollbackSuspected => {
                "The operator must look what a restored backup set back (azdo-broker connections accept-restore), and accept it if the restore was meant (--yes); otherwise disconnect or link again."
            }
            Self::ShuttingDown => "Ask again: another instance, or this one after its restart, will answer.",
            Self::SnapshotGone => "Begin again, without the page token or cursor.",
            Self::StoreUnavailable => "The operator must make the store reachable and writable.",
            Self::Suspended => "Whoever suspended the integration must resume it.",
            Self::UpstreamThrottled => {
                "Ask again later: Microsoft is throttling, or the broker paces what it asks of Microsoft."
            }
            Self::UpstreamUnavailable => "Ask again later: Microsoft's services do not answer.",
        }
    }

    /// Whether the same wish may be granted later without anybody's help.
    pub fn is_transient(self) -> bool {
        match self.class() {
            Class::Unavailable | Class::Exhausted => true,
            Class::Precondition | Class::Permission | Class::Aborted | Class::DataLoss => false,
        }
    }
}

impl Problem {
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), retry_after: None, facts: Vec::new(), remedy: None, case: None }
    }

    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// With the code Entra gave, and what that code asks of whom.
    #[must_use]
    pub fn entra_code(self, code: Option<u32>) -> Self {
        match code {
            None => self,
            Some(code) => {
                let remedy = crate::remedy::of(code);
                Self { remedy, ..self.fact("entra_code", format_args!("AADSTS{code}")) }
            }
        }
    }

    #[must_use]
    pub fn case(self, case: impl Into<Option<Case>>) -> Self {
        Self { case: case.into(), ..self }
    }

    /// Who must act in this very case.
    pub fn who_acts(&self) -> Actor {
        self.case.map_or_else(|| self.reason.who_acts(), Case::who_acts)
    }

    /// What that somebody must do, as one sentence.
    pub fn what_to_do(&self) -> &'static str {
        let known = self.case.map(Case::what_to_do).or(self.remedy);
        known.unwrap_or_else(|| self.reason.what_to_do())
    }

    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.facts.push((name, value.to_string()));
        self
    }
}

impl Refused {
    pub fn invalid(field: &'static str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }

    pub fn invalid_name(field: &'static str) -> impl FnOnce(InvalidName) -> Self {
        move |problem| Self::invalid(field, problem.to_string())
    }

    /// The stable word of this refusal for audit and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Denied => "DENIED",
            Self::Invalid { .. } => "INVALID",
            Self::NotFound(_) => "NOT_FOUND",
            Self::Precondition(_) => "PRECONDITION",
            Self::Problem(problem) => problem.reason.as_str(),
        }
    }
}

impl Actor {
    pub const ALL: [Self; 5] =
        [Self::Caller, Self::LinkedPerson, Self::CustomerAdmin, Self::PlatformAdmin, Self::Operator];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "the caller",
            Self::LinkedPerson => "the linked person",
            Self::CustomerAdmin => "the customer's administrator",
            Self::PlatformAdmin => "whoever registers integrations",
            Self::Operator => "the operator of the broker",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P10: whoever must act on Azure's side finds the reason in the guide.
    #[test]
    fn the_guide_to_azure_has_every_reason_that_is_mended_there() {
        let guide = include_str!("../docs/azure.md");
        let headings: Vec<_> = guide.lines().filter(|line| line.starts_with("### ")).collect();
        for reason in Reason::ALL {
            let is_mended_there = match reason.who_acts() {
                Actor::LinkedPerson | Actor::CustomerAdmin | Actor::PlatformAdmin => true,
                Actor::Caller | Actor::Operator => false,
            };
            let has_heading = headings.iter().any(|line| line.contains(reason.as_str()));
            assert!(has_heading || !is_mended_there, "{}", reason.as_str());
        }
    }
}
