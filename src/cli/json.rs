//! The JSON that `--json` prints: names of the contract's fields, RFC 3339 times, lower-case words
//! for states (`needs_relink`), `service_user` or `developer/ana` for connections, null for what is
//! not known.
//!
//! Shapes grow, they do not change. No secret is in any of them: only `token --reveal` adds one.

use serde_json::{Value, json};

use super::show::{connection_name, time, word};
use crate::client::Explained;
use crate::pb;

/// `{error: {code, reason, message, who_acts, what_to_do, retry_after_s, particulars, links}}`, on
/// standard error.
pub(super) fn refusal(explained: &Explained) -> Value {
    json!({ "error": {
        "code": explained.code,
        "reason": explained.reason,
        "message": explained.message,
        "who_acts": explained.who_acts,
        "what_to_do": explained.what_to_do,
        "retry_after_s": explained.retry_after.map(|wait| wait.as_secs()),
        "particulars": explained.particulars,
        "links": explained.links,
    } })
}

pub(super) fn at(at: Option<&prost_types::Timestamp>) -> Value {
    time(at).map_or(Value::Null, |at| at.to_string().into())
}

pub(super) fn identity(identity: Option<&pb::Identity>) -> Value {
    let Some(identity) = identity else { return Value::Null };
    json!({
        "tenant_id": identity.tenant_id,
        "object_id": identity.object_id,
        "login": identity.login,
        "display_name": identity.display_name,
    })
}

pub(super) fn restored(connection: &pb::RestoredConnection) -> Value {
    json!({
        "account_id": connection.account_id,
        "connection": super::show::connection_name(connection.connection.as_ref()),
        "generation": connection.generation,
        "seen_generation": connection.seen_generation,
        "was_disconnected": connection.was_disconnected,
        "refused": connection.refused,
    })
}

pub(super) fn warnings(warnings: &[pb::Warning]) -> Value {
    warnings.iter().map(|warning| json!({ "code": warning.code, "text": warning.text })).collect()
}

pub(super) fn connection(connection: &pb::Connection) -> Value {
    json!({
        "account_id": connection.account_id,
        "connection": connection_name(connection.connection.as_ref()),
        "identity": identity(connection.identity.as_ref()),
        "state": word(connection.state().as_str_name(), "CONNECTION_STATE_"),
        "linked_at": at(connection.linked_at.as_ref()),
        "linked_by": connection.linked_by,
        "token_expires_at": at(connection.token_expires_at.as_ref()),
        "last_refreshed_at": at(connection.last_refreshed_at.as_ref()),
        "grant_expires_by": at(connection.grant_expires_by.as_ref()),
        "failure": connection.failure.as_ref().map(|failure| json!({
            "reason": failure.reason,
            "message": failure.message,
            "since": at(failure.since.as_ref()),
            "count": failure.count,
            "code": failure.code,
            "who_acts": failure.who_acts,
        })),
        "generation": connection.generation,
        "warnings": warnings(&connection.warnings),
    })
}

pub(super) fn client_credential(credential: &pb::ClientCredential) -> Value {
    json!({
        "id": credential.id,
        "kind": word(credential.kind().as_str_name(), "CLIENT_CREDENTIAL_KIND_"),
        "fingerprint": credential.fingerprint,
        "expires_at": at(credential.expires_at.as_ref()),
        "added_at": at(credential.added_at.as_ref()),
        "proven_at": at(credential.proven_at.as_ref()),
        "rejected_at": at(credential.rejected_at.as_ref()),
        "warnings": warnings(&credential.warnings),
    })
}

pub(super) fn integration(integration: &pb::Integration) -> Value {
    let redirect =
        |uri: &pb::RedirectUri| json!({ "role": word(uri.role().as_str_name(), "ROLE_"), "uri": uri.uri });
    json!({
        "account_id": integration.account_id,
        "organization": integration.organization,
        "tenant_id": integration.tenant_id,
        "client_id": integration.client_id,
        "public_url": integration.public_url,
        "headless_identity": word(integration.headless_identity().as_str_name(), "HEADLESS_IDENTITY_"),
        "client_credentials": integration.client_credentials.iter().map(client_credential).collect::<Vec<_>>(),
        "redirect_uris": integration.redirect_uris.iter().map(redirect).collect::<Vec<_>>(),
        "suspension": integration.suspension.as_ref().map(|suspension| json!({
            "since": at(suspension.since.as_ref()),
            "actor": suspension.actor,
            "note": suspension.note,
        })),
        "created_at": at(integration.created_at.as_ref()),
        "updated_at": at(integration.updated_at.as_ref()),
        "devops_scopes": integration.devops_scopes,
        "warnings": warnings(&integration.warnings),
    })
}

pub(super) fn repository(repository: &pb::Repository) -> Value {
    json!({
        "id": repository.id,
        "name": repository.name,
        "project_id": repository.project_id,
        "project": repository.project,
        "default_branch": repository.default_branch,
        "clone_url": repository.clone_url,
        "ssh_url": repository.ssh_url,
        "web_url": repository.web_url,
        "size_bytes": repository.size_bytes,
        "readability": word(repository.readability().as_str_name(), "READABILITY_"),
    })
}
