//! Changes to a running world. Repositories can be changed but not added.

use serde::{Deserialize, Serialize};

use crate::world::{Licence, Member, Organization, Secret, World, same};

/// One change. In JSON: `{"change": "member.remove", "organization": "contoso", "user": "…"}`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "change", deny_unknown_fields)]
pub enum Change {
    /// Adds a member, or gives a member another licence.
    #[serde(rename = "member.add")]
    AddMember {
        organization: String,
        user: String,
        #[serde(default)]
        licence: Licence,
    },
    #[serde(rename = "member.remove")]
    RemoveMember { organization: String, user: String },
    /// Connects the organization to a directory, or to none.
    #[serde(rename = "organization.connect")]
    Connect {
        organization: String,
        #[serde(default)]
        tenant: Option<String>,
    },
    /// Sets what is given and leaves the rest.
    #[serde(rename = "repository.set")]
    SetRepository {
        organization: String,
        project: String,
        repository: String,
        #[serde(default)]
        disabled: Option<bool>,
        #[serde(default)]
        denied_read: Option<Vec<String>>,
        #[serde(default)]
        contribute: Option<Vec<String>>,
    },
    /// Adds a secret to an app, as an operator does before taking the old one away.
    #[serde(rename = "secret.add")]
    AddSecret { client_id: String, value: String },
    #[serde(rename = "secret.remove")]
    RemoveSecret { client_id: String, value: String },
    /// The user is gone from the directory.
    #[serde(rename = "user.remove")]
    RemoveUser { upn: String },
}

impl Change {
    /// An error names what is not there.
    pub(crate) fn apply(self, world: &mut World) -> Result<(), String> {
        match self {
            Self::AddMember { organization, user, licence } => {
                if world.user(&user).is_none() && world.app(&user).is_none() {
                    return Err(format!("no user {user}"));
                }
                let members = &mut find(world, &organization)?.members;
                members.retain(|member| !same(&member.user, &user));
                members.push(Member { user, licence });
            }
            Self::RemoveMember { organization, user } => {
                find(world, &organization)?.members.retain(|member| !same(&member.user, &user));
            }
            Self::Connect { organization, tenant } => {
                if let Some(tenant) = tenant.as_ref().filter(|tenant| world.tenant(tenant).is_none()) {
                    return Err(format!("no tenant {tenant}"));
                }
                find(world, &organization)?.tenant = tenant;
            }
            Self::SetRepository { organization, project, repository, disabled, denied_read, contribute } => {
                let organization = find(world, &organization)?;
                let mut projects = organization.projects.iter_mut().filter(|it| same(&it.name, &project));
                let found =
                    projects.find_map(|it| it.repositories.iter_mut().find(|it| same(&it.name, &repository)));
                let found = found.ok_or_else(|| format!("no repository {repository}"))?;
                found.disabled = disabled.unwrap_or(found.disabled);
                if let Some(denied_read) = denied_read {
                    found.denied_read = denied_read;
                }
                if let Some(contribute) = contribute {
                    found.contribute = contribute;
                }
            }
            Self::AddSecret { client_id, value } => {
                secrets(world, &client_id)?.push(Secret { value, expires_at: None });
            }
            Self::RemoveSecret { client_id, value } => {
                secrets(world, &client_id)?.retain(|secret| secret.value != value);
            }
            Self::RemoveUser { upn } => world.users.retain(|user| !same(&user.upn, &upn)),
        }
        Ok(())
    }
}

fn find<'a>(world: &'a mut World, name: &str) -> Result<&'a mut Organization, String> {
    let mut organizations = world.organizations.iter_mut();
    organizations.find(|it| same(&it.name, name)).ok_or_else(|| format!("no organization {name}"))
}

fn secrets<'a>(world: &'a mut World, client_id: &str) -> Result<&'a mut Vec<Secret>, String> {
    let mut apps = world.apps.iter_mut();
    let app = apps.find(|it| same(&it.client_id, client_id));
    app.map(|it| &mut it.secrets).ok_or_else(|| format!("no app {client_id}"))
}
