//! The one place where refusals become gRPC statuses (S12).
//!
//! Messages are our own words for the caller; causes were logged where they arose. A refusal that a
//! person can mend names the person and the act (P10).

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::reason::{Class, Problem, Reason, Refused};

/// The status of a refusal.
pub(super) fn of(refused: &Refused) -> Status {
    match refused {
        Refused::Denied => {
            Status::permission_denied("the policy does not allow this, or there is no such account")
        }
        Refused::Invalid { field, problem } => {
            let mut details = ErrorDetails::new();
            details.add_bad_request_violation(*field, problem.as_ref());
            Status::with_error_details(Code::InvalidArgument, format!("{field}: {problem}"), details)
        }
        Refused::NotFound(what) => Status::not_found(format!("{what} was not found")),
        Refused::Precondition(sentence) => Status::failed_precondition(sentence.as_ref()),
        Refused::Problem(problem) => of_problem(problem),
    }
}

/// The caller is not known: no certificate or socket name that counts.
pub(super) fn unauthenticated(sentence: &str) -> Status {
    Status::unauthenticated(sentence)
}

/// A method of a later step.
pub(super) fn unimplemented() -> Status {
    Status::unimplemented("this method is not built yet")
}

fn of_problem(problem: &Problem) -> Status {
    let reason = problem.reason;
    let mut metadata: HashMap<String, String> =
        problem.facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    metadata.insert("who_acts".to_owned(), problem.who_acts().as_str().to_owned());
    metadata.insert("what_to_do".to_owned(), problem.what_to_do().to_owned());
    let mut details = ErrorDetails::new();
    details.set_error_info(reason.as_str(), DOMAIN, metadata);
    if let Some(wait) = problem.retry_after {
        details.set_retry_info(Some(wait));
    }
    if let Some((description, url)) = help(reason) {
        details.add_help_link(description, url);
    }
    let message = format!("{}: {}. {}", reason.as_str(), problem.detail, problem.what_to_do());
    Status::with_error_details(code(reason.class()), message, details)
}

fn code(class: Class) -> Code {
    match class {
        Class::Precondition => Code::FailedPrecondition,
        Class::Permission => Code::PermissionDenied,
        Class::Aborted => Code::Aborted,
        Class::DataLoss => Code::DataLoss,
        Class::Unavailable => Code::Unavailable,
        Class::Exhausted => Code::ResourceExhausted,
    }
}

/// Where a person can act.
pub(super) fn help(reason: Reason) -> Option<(&'static str, &'static str)> {
    match reason {
        Reason::AdminActionRequired
        | Reason::ClientCredentialRejected
        | Reason::ConsentRequired
        | Reason::IntegrationMisconfigured => {
            Some(("App registrations and enterprise applications in Entra", "https://entra.microsoft.com/"))
        }
        Reason::NotAMember => Some((
            "Add users to an Azure DevOps organization",
            "https://learn.microsoft.com/azure/devops/organizations/accounts/add-organization-users",
        )),
        Reason::AuditUnavailable
        | Reason::DeveloperAssertionRejected
        | Reason::DeveloperAssertionRequired
        | Reason::KeysUnavailable
        | Reason::LinkExpired
        | Reason::LinkMismatch
        | Reason::MinTtlTooLong
        | Reason::NotLinked
        | Reason::OrganizationMismatch
        | Reason::RateLimited
        | Reason::RecordDamaged
        | Reason::RelinkRequired
        | Reason::RollbackSuspected
        | Reason::ShuttingDown
        | Reason::SnapshotGone
        | Reason::StoreUnavailable
        | Reason::Suspended
        | Reason::UpstreamThrottled
        | Reason::UpstreamUnavailable => None,
    }
}

const DOMAIN: &str = "azdo-broker";

#[cfg(test)]
mod tests {
    use super::*;

    /// P10: the table in the proto is this table.
    #[test]
    fn the_proto_documents_every_reason_with_its_code_who_acts_and_whether_waiting_helps() {
        let table = include_str!("../../proto/azdo/broker/v1/reason.proto");
        for reason in Reason::ALL {
            let row = table
                .lines()
                .find(|line| line.trim_start_matches("// ").starts_with(&format!("{} |", reason.as_str())))
                .unwrap_or_else(|| panic!("{} has no row", reason.as_str()));
            let name = format!("{:?}", code(reason.class()));
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let &[_, documented, who_acts, retry] = cells.as_slice() else { panic!("{row}") };
            assert_eq!(documented.replace('_', ""), name.to_uppercase(), "{row}");
            assert_eq!(who_acts, reason.who_acts().as_str(), "{row}");
            assert_eq!(retry == "retry", reason.is_transient(), "{row}");
            assert!(matches!(retry, "retry" | "-"), "{row}");
        }
    }

    #[test]
    fn a_problem_names_reason_remedy_and_wait() {
        let problem = Problem::new(Reason::UpstreamThrottled, "slow down")
            .retry_after(std::time::Duration::from_secs(7))
            .entra_code(Some(50_196));
        let status = of(&problem.into());
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("UPSTREAM_THROTTLED", "azdo-broker"));
        assert_eq!(info.metadata["entra_code"], "AADSTS50196");
        assert_eq!(info.metadata["what_to_do"], crate::remedy::of(50_196).unwrap());
        assert_eq!(details.retry_info().unwrap().retry_delay.unwrap().as_secs(), 7);
        assert_eq!(status.code(), Code::Unavailable);
    }
}
