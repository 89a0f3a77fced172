//! From the use cases' views to the wire.

use jiff::Timestamp;

use super::status;
use crate::accounts::{warnings_of, warnings_of_credential};
use crate::connection::{ConnectionKey, HeadlessIdentity, Identity, Role};
use crate::devops::Repository;
use crate::git_url::GitUrl;
use crate::ids::{Label, Organization};
use crate::integrations::{Check, Found, Report};
use crate::links::{Begun, ConnectionView, Door, LinkView, below, redirect_path};
use crate::operations::Restored;
use crate::pb;
use crate::reason::Warning;
use crate::repos::{Listed, Readability};
use crate::vault::{ClientCredential, Integration, LinkPhase, Means, Suspension};

pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

pub(super) fn identity(identity: &Identity) -> pb::Identity {
    pb::Identity {
        tenant_id: identity.tenant.to_string(),
        object_id: identity.object_id.to_string(),
        login: identity.login.clone(),
        display_name: identity.display_name.clone(),
    }
}

pub(super) fn connection_name(key: &ConnectionKey) -> pb::ConnectionName {
    let (role, developer_id) = match &key.role {
        Role::ServiceUser => (pb::Role::ServiceUser, String::new()),
        Role::ServicePrincipal => (pb::Role::ServicePrincipal, String::new()),
        Role::Developer(developer) => (pb::Role::Developer, developer.to_string()),
    };
    pb::ConnectionName { role: role.into(), developer_id }
}

pub(super) fn restored(restored: &Restored) -> pb::RestoredConnection {
    let Restored { rollback, refused } = restored;
    pb::RestoredConnection {
        account_id: rollback.key.account.to_string(),
        connection: Some(connection_name(&rollback.key)),
        generation: rollback.found.unwrap_or_default().0,
        seen_generation: rollback.seen.generation.0,
        was_disconnected: rollback.seen.is_end,
        refused: refused.as_ref().map(|refused| refused.as_str().to_owned()).unwrap_or_default(),
    }
}

pub(super) fn warnings(warnings: &[Warning]) -> Vec<pb::Warning> {
    let warning =
        |warning: &Warning| pb::Warning { code: warning.code.to_owned(), text: warning.text.clone() };
    warnings.iter().map(warning).collect()
}

pub(super) fn connection(view: &ConnectionView) -> pb::Connection {
    let state = match &view.failure {
        _ if !view.live => pb::ConnectionState::Disconnected,
        None if !view.is_proven => pb::ConnectionState::Imported,
        None => pb::ConnectionState::Connected,
        Some(failure) if failure.needs_person => pb::ConnectionState::NeedsRelink,
        Some(_) => pb::ConnectionState::Failing,
    };
    pb::Connection {
        account_id: view.key.account.to_string(),
        connection: Some(connection_name(&view.key)),
        identity: view.identity.as_ref().map(identity),
        state: state.into(),
        linked_at: view.linked_at.map(timestamp),
        linked_by: view.linked_by.as_ref().map(ToString::to_string).unwrap_or_default(),
        token_expires_at: view.token_expires_at.map(timestamp),
        last_refreshed_at: view.refreshed_at.map(timestamp),
        failure: view.failure.as_ref().map(|failure| pb::Failure {
            reason: failure.reason.as_str().to_owned(),
            message: failure.what_to_do().to_owned(),
            since: Some(timestamp(failure.since)),
            count: failure.count,
            code: failure.code.unwrap_or_default(),
            who_acts: failure.who_acts().as_str().to_owned(),
        }),
        grant_expires_by: view.grant_expires_by.map(timestamp),
        generation: view.generation.0,
        warnings: warnings(&view.warnings),
    }
}

pub(super) fn begun(begun: Begun) -> pb::BeginLinkResponse {
    let (link_url, authorize_url, state) = match begun.door {
        Door::LinkUrl(url) => (url.to_string(), String::new(), String::new()),
        Door::Authorize { url, state } => (String::new(), url.to_string(), state),
    };
    pb::BeginLinkResponse {
        link_id: begun.id.to_string(),
        link_url,
        authorize_url,
        state,
        expires_at: Some(timestamp(begun.expires_at)),
    }
}

pub(super) fn link(view: &LinkView) -> pb::Link {
    let state = match view.phase {
        LinkPhase::Begun => pb::LinkState::Begun,
        LinkPhase::Taken => pb::LinkState::Taken,
        LinkPhase::Held => pb::LinkState::Held,
        LinkPhase::Verified => pb::LinkState::Verified,
        LinkPhase::Connected => pb::LinkState::Connected,
        LinkPhase::Ended => pb::LinkState::Ended,
    };
    pb::Link {
        account_id: view.key.account.to_string(),
        link_id: view.id.to_string(),
        connection: Some(connection_name(&view.key)),
        state: state.into(),
        identity: view.identity.as_ref().map(identity),
        replaces: view.replaces.as_ref().map(identity),
        ended_reason: view.ended.as_ref().map(|end| end.reason.as_str().to_owned()).unwrap_or_default(),
        message: view.ended.as_ref().map(|end| end.message.clone()).unwrap_or_default(),
        expires_at: view.phase.is_open().then(|| timestamp(view.expires_at)),
        confirmation_required: view.confirmation_required,
        warnings: warnings(&view.warnings),
    }
}

pub(super) fn client_credential(credential: &ClientCredential, now: Timestamp) -> pb::ClientCredential {
    let kind = match credential.means {
        Means::Secret { .. } => pb::ClientCredentialKind::Secret,
        Means::Certificate { .. } => pb::ClientCredentialKind::Certificate,
        Means::Federated { .. } => pb::ClientCredentialKind::Federated,
    };
    pb::ClientCredential {
        id: credential.id.to_string(),
        kind: kind.into(),
        fingerprint: credential.fingerprint(),
        expires_at: credential.expires_at.map(timestamp),
        added_at: Some(timestamp(credential.added_at)),
        proven_at: credential.proven_at.map(timestamp),
        rejected_at: credential.rejected_at.map(timestamp),
        warnings: warnings(&warnings_of_credential(credential, now)),
    }
}

fn suspension(suspension: &Suspension) -> pb::Suspension {
    let text = |label: &Option<Label>| label.as_ref().map(ToString::to_string).unwrap_or_default();
    pb::Suspension {
        since: Some(timestamp(suspension.since)),
        actor: text(&suspension.actor),
        note: text(&suspension.note),
    }
}

pub(super) fn integration(integration: &Integration, now: Timestamp) -> pb::Integration {
    let uri = |role: pb::Role, path: &str| pb::RedirectUri {
        role: role.into(),
        uri: below(&integration.public_url, path).to_string(),
    };
    let developer = Role::Developer("any".parse().expect("a valid constant"));
    pb::Integration {
        account_id: integration.account.to_string(),
        organization: integration.organization.to_string(),
        tenant_id: integration.tenant.to_string(),
        client_id: integration.client_id.to_string(),
        public_url: integration.public_url.to_string(),
        headless_identity: match integration.headless {
            HeadlessIdentity::ServiceUser => pb::HeadlessIdentity::ServiceUser.into(),
            HeadlessIdentity::ServicePrincipal => pb::HeadlessIdentity::ServicePrincipal.into(),
        },
        client_credentials: integration.credentials.iter().map(|one| client_credential(one, now)).collect(),
        redirect_uris: vec![
            uri(pb::Role::ServiceUser, redirect_path(&Role::ServiceUser)),
            uri(pb::Role::Developer, redirect_path(&developer)),
        ],
        suspension: integration.suspension.as_ref().map(suspension),
        created_at: Some(timestamp(integration.created_at)),
        updated_at: Some(timestamp(integration.updated_at)),
        warnings: warnings(&warnings_of(integration, now)),
        devops_scopes: integration.scopes.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn listed(listed: &Listed) -> pb::ListReadableReposResponse {
    let repos =
        listed.repos().map(|(repo, readability)| repository(listed.organization(), repo, readability));
    pb::ListReadableReposResponse {
        repos: repos.collect(),
        next_page_token: listed.next_page_token.clone().unwrap_or_default(),
        as_of: Some(timestamp(listed.as_of())),
        identity: Some(identity(listed.identity())),
        warnings: warnings(&listed.warnings),
    }
}

fn repository(organization: &Organization, repo: &Repository, readability: Readability) -> pb::Repository {
    // Azure's own URLs name a user, and on old organizations the old host (azure.md 3.5).
    let url = GitUrl {
        organization: organization.clone(),
        project: repo.project.name.clone(),
        repository: repo.name.to_string(),
    };
    pb::Repository {
        id: repo.id.to_string(),
        name: repo.name.to_string(),
        project_id: repo.project.id.clone(),
        project: repo.project.name.clone(),
        default_branch: repo.default_branch.as_deref().unwrap_or_default().to_owned(),
        clone_url: url.to_url(),
        ssh_url: url.to_ssh_url(),
        web_url: url.to_url(),
        size_bytes: i64::try_from(repo.size).unwrap_or(i64::MAX),
        readability: match readability {
            Readability::Readable => pb::Readability::Readable.into(),
            Readability::Disabled => pb::Readability::Disabled.into(),
            Readability::NoPermission => pb::Readability::NoPermission.into(),
        },
    }
}

pub(super) fn report(report: &Report) -> pb::CheckIntegrationResponse {
    let check = |check: &Check| {
        let (outcome, reason) = match check.found {
            Found::Passed => (pb::CheckOutcome::Passed, None),
            Found::Warned => (pb::CheckOutcome::Warned, None),
            Found::Failed(reason) => (pb::CheckOutcome::Failed, Some(reason)),
            Found::Skipped => (pb::CheckOutcome::Skipped, None),
        };
        pb::Check {
            name: check.name.to_owned(),
            outcome: outcome.into(),
            reason: reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
            message: check.message.clone(),
            help_url: reason.and_then(status::help).map(|(_, url)| url.to_owned()).unwrap_or_default(),
        }
    };
    pb::CheckIntegrationResponse {
        checks: report.checks.iter().map(check).collect(),
        checked_at: Some(timestamp(report.at)),
    }
}
