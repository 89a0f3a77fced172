//! Changes to a running world.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::app_change;
use crate::world::{
    FederatedCredential, Generated, Licence, Member, Organization, Project, Repository, World, same,
};

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
    /// Adds a project, with all its repositories.
    #[serde(rename = "project.add")]
    AddProject { organization: String, project: Project },
    #[serde(rename = "repository.add")]
    AddRepository { organization: String, project: String, repository: Repository },
    /// Generates repositories in a project, in place of those generated before.
    #[serde(rename = "repository.generate")]
    GenerateRepositories { organization: String, project: String, generated: Generated },
    /// Adds a secret to an app, as an operator does before taking the old one away.
    #[serde(rename = "secret.add")]
    AddSecret { client_id: String, value: String },
    #[serde(rename = "secret.remove")]
    RemoveSecret { client_id: String, value: String },
    /// Adds the secret unless the app has it, and sets when it expires (never, when absent).
    #[serde(rename = "secret.set")]
    SetSecret {
        client_id: String,
        value: String,
        #[serde(default)]
        expires_at: Option<Timestamp>,
    },
    /// Adds a certificate (PEM, or base64 of DER) which may sign assertions.
    #[serde(rename = "certificate.add")]
    AddCertificate { client_id: String, certificate: String },
    #[serde(rename = "certificate.remove")]
    RemoveCertificate { client_id: String, certificate: String },
    /// Trusts an issuer's assertions about a subject.
    #[serde(rename = "federated.add")]
    AddFederated { client_id: String, credential: FederatedCredential },
    #[serde(rename = "federated.remove")]
    RemoveFederated { client_id: String, issuer: String, subject: String },
    /// Publishes an issuer's keys, in place of those it had.
    #[serde(rename = "issuer.set")]
    SetIssuer { issuer: String, keys: Vec<Value> },
    /// Makes or deletes the app's service principal in a tenant.
    #[serde(rename = "service_principal.set")]
    SetServicePrincipal {
        client_id: String,
        tenant: String,
        #[serde(default)]
        oid: Option<String>,
        present: bool,
    },
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
                let project = find_project(world, &organization, &project)?;
                let found = project.repository(&repository).map(Cow::into_owned);
                let found = found.ok_or_else(|| format!("no repository {repository}"))?;
                // A generated one is written down before it is changed.
                if !project.repositories.iter().any(|it| it.id == found.id) {
                    project.repositories.push(found.clone());
                }
                let mut written = project.repositories.iter_mut();
                let found = written.find(|it| it.id == found.id).expect("it has just been written down");
                found.disabled = disabled.unwrap_or(found.disabled);
                if let Some(denied_read) = denied_read {
                    found.denied_read = denied_read;
                }
                if let Some(contribute) = contribute {
                    found.contribute = contribute;
                }
            }
            Self::AddProject { organization, project } => {
                let organization = find(world, &organization)?;
                if organization.project(&project.id).or(organization.project(&project.name)).is_some() {
                    return Err(format!("there is a project {} already", project.name));
                }
                organization.projects.push(project);
            }
            Self::AddRepository { organization, project, repository } => {
                let project = find_project(world, &organization, &project)?;
                if project.repository(&repository.id).or(project.repository(&repository.name)).is_some() {
                    return Err(format!("there is a repository {} already", repository.name));
                }
                project.repositories.push(repository);
            }
            Self::GenerateRepositories { organization, project, generated } => {
                find_project(world, &organization, &project)?.generated = Some(generated);
            }
            Self::AddSecret { .. }
            | Self::RemoveSecret { .. }
            | Self::SetSecret { .. }
            | Self::AddCertificate { .. }
            | Self::RemoveCertificate { .. }
            | Self::AddFederated { .. }
            | Self::RemoveFederated { .. }
            | Self::SetIssuer { .. }
            | Self::SetServicePrincipal { .. } => return app_change::apply(self, world),
            Self::RemoveUser { upn } => world.users.retain(|user| !same(&user.upn, &upn)),
        }
        Ok(())
    }
}

fn find<'a>(world: &'a mut World, name: &str) -> Result<&'a mut Organization, String> {
    let mut organizations = world.organizations.iter_mut();
    organizations.find(|it| same(&it.name, name)).ok_or_else(|| format!("no organization {name}"))
}

fn find_project<'a>(world: &'a mut World, organization: &str, name: &str) -> Result<&'a mut Project, String> {
    let mut projects = find(world, organization)?.projects.iter_mut();
    let found = projects.find(|it| same(&it.id, name) || same(&it.name, name));
    found.ok_or_else(|| format!("no project {name}"))
}
