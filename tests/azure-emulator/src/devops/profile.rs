//! Who one is: `connectionData` of an organization, profile and accounts of a person.

use serde_json::{Value, json};

use super::access::{self, Caller};
use super::{errors, locations};
use crate::call::{Answer, Call, json as answer_json, with_header};
use crate::random::derive_guid;
use crate::state::{Shared, Subject};

pub(super) fn connection_data(caller: &Caller) -> Answer {
    let user = identity(&caller.subject);
    let instance = derive_guid(&caller.organization.name);
    let answer = answer_json(
        200,
        &json!({
            "authenticatedUser": user,
            "authorizedUser": user,
            "instanceId": instance,
            "deploymentId": derive_guid("deployment"),
            "deploymentType": "hosted",
            "locationServiceData": {
                "serviceOwner": derive_guid("service owner"),
                "defaultAccessMappingMoniker": "PublicAccessMapping",
                "lastChangeId": 1, "lastChangeId64": 1, "clientCacheFresh": false,
            },
        }),
    );
    with_header(answer, "x-vss-resourcetenant", &caller.tenant_id)
}

/// An app has no account: of it only the name is known.
fn identity(subject: &Subject) -> Value {
    let id = derive_guid(&subject.oid);
    let (kind, name, prefix) = if subject.is_app {
        ("Microsoft.VisualStudio.Services.Claims.AadServicePrincipal", &subject.oid, "aadsp")
    } else {
        ("Microsoft.IdentityModel.Claims.ClaimsIdentity", &subject.name, "aad")
    };
    let mut identity = json!({
        "id": id,
        "descriptor": format!("{kind};{}\\{name}", subject.tenant_id),
        "subjectDescriptor": format!("{prefix}.{}", id.replace('-', "")),
        "providerDisplayName": subject.display_name,
        "isActive": true,
        "properties": {},
        "resourceVersion": 2,
        "metaTypeId": 0,
    });
    if !subject.is_app {
        identity["properties"]["Account"] = json!({ "$type": "System.String", "$value": subject.name });
    }
    identity
}

/// The host that belongs to no organization.
pub(crate) fn answer_profile(shared: &Shared, call: &Call) -> Answer {
    if let Some(answer) = locations::answer_profile_host(call) {
        return answer;
    }
    let Some(token) = access::token(shared, call) else {
        return answer_json(401, &errors::not_authorized(access::ANONYMOUS));
    };
    match call.segments().as_slice() {
        ["_apis", area, "profiles" | "Profiles", "me"] if area.eq_ignore_ascii_case("profile") => {
            profile(shared, &token.subject)
        }
        ["_apis", "accounts"] => accounts(shared, &token.subject),
        _ => errors::no_resource(),
    }
}

fn profile(shared: &Shared, subject: &Subject) -> Answer {
    let email = shared.state().world.user(&subject.oid).and_then(|user| user.email.clone());
    answer_json(
        200,
        &json!({
            "displayName": subject.display_name,
            "publicAlias": derive_guid(&subject.oid),
            "emailAddress": email.unwrap_or_else(|| subject.name.clone()),
            "coreRevision": 1,
            "timeStamp": "2026-01-01T00:00:00Z",
            "id": derive_guid(&subject.oid),
            "revision": 1,
        }),
    )
}

fn accounts(shared: &Shared, subject: &Subject) -> Answer {
    let state = shared.state();
    let organizations = state.world.organizations.iter();
    let accounts: Vec<Value> = organizations
        .filter(|organization| organization.member(&subject.name).is_some())
        .map(|organization| {
            json!({
                "accountId": derive_guid(&organization.name),
                "accountUri": format!("https://vssps.dev.azure.com:443/{}/", organization.name),
                "accountName": organization.name,
                "properties": {},
            })
        })
        .collect();
    answer_json(200, &json!({ "count": accounts.len(), "value": accounts }))
}
