//! What exists: tenants, apps, users, organizations, projects and repositories.
//!
//! A world is data, read from TOML. Names are resolved here, in one place; who may do what is
//! decided by those who ask.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The world file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct World {
    pub tenants: Vec<Tenant>,
    pub apps: Vec<App>,
    pub users: Vec<User>,
    pub organizations: Vec<Organization>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    pub id: String,
    /// The first one is the tenant's name on the sign-in page.
    pub domains: Vec<String>,
    #[serde(default = "yes")]
    pub user_consent_allowed: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    pub name: String,
    pub client_id: String,
    /// Id or domain of the tenant in which it is registered.
    pub home_tenant: String,
    #[serde(default)]
    pub multitenant: bool,
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    #[serde(default)]
    pub secrets: Vec<Secret>,
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Delegated Azure DevOps permissions, such as `user_impersonation`.
    #[serde(default)]
    pub permissions: Vec<String>,
    /// Tenants (id or domain) whose administrator has consented for everybody.
    #[serde(default)]
    pub admin_consent: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    pub value: String,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub oid: String,
    /// Id or domain.
    pub tenant: String,
    pub upn: String,
    #[serde(default)]
    pub email: Option<String>,
    pub name: String,
    #[serde(default = "yes")]
    pub enabled: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    pub name: String,
    /// Id or domain of the connected directory.
    #[serde(default)]
    pub tenant: Option<String>,
    #[serde(default)]
    pub members: Vec<Member>,
    #[serde(default)]
    pub projects: Vec<Project>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The UPN of a user, or the client id of an app.
    pub user: String,
    #[serde(default)]
    pub licence: Licence,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Licence {
    #[default]
    Basic,
    /// No access to code.
    Stakeholder,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    pub id: String,
    pub name: String,
    #[serde(default = "private")]
    pub visibility: String,
    #[serde(default = "well_formed")]
    pub state: String,
    /// UPNs from which the whole project is hidden.
    #[serde(default)]
    pub denied_read: Vec<String>,
    #[serde(default)]
    pub repositories: Vec<Repository>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    pub id: String,
    pub name: String,
    /// Name of the branch `files` are committed to; `main` when absent.
    #[serde(default)]
    pub default_branch: Option<String>,
    #[serde(default)]
    pub disabled: bool,
    #[serde(default)]
    pub maintenance: bool,
    #[serde(default)]
    pub size: Option<u64>,
    /// Path to content; an empty table makes an empty repository.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// UPNs which may not read it.
    #[serde(default)]
    pub denied_read: Vec<String>,
    /// UPNs which may push to it.
    #[serde(default)]
    pub contribute: Vec<String>,
}

/// Why a world file is no world.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    #[error("the world file cannot be read")]
    Syntax(#[from] toml::de::Error),
    #[error("the world refers to `{0}`, which it does not define")]
    Dangling(String),
}

impl World {
    /// The text of the example, with comments.
    pub const EXAMPLE: &'static str = include_str!("../world.example.toml");

    pub fn from_toml(text: &str) -> Result<Self, WorldError> {
        let world: Self = toml::from_str(text)?;
        world.check()?;
        Ok(world)
    }

    /// Contoso: one tenant of interest, one organization, and one case of each kind.
    pub fn example() -> Self {
        Self::from_toml(Self::EXAMPLE).expect("a test reads the example")
    }

    fn check(&self) -> Result<(), WorldError> {
        let homes = self.apps.iter().map(|app| &app.home_tenant);
        let consents = self.apps.iter().flat_map(|app| &app.admin_consent);
        let users = self.users.iter().map(|user| &user.tenant);
        let connected = self.organizations.iter().filter_map(|org| org.tenant.as_ref());
        for tenant in homes.chain(consents).chain(users).chain(connected) {
            self.tenant(tenant).ok_or_else(|| WorldError::Dangling(tenant.clone()))?;
        }
        for member in self.organizations.iter().flat_map(|org| &org.members) {
            let known = self.user(&member.user).is_some() || self.app(&member.user).is_some();
            known.then_some(()).ok_or_else(|| WorldError::Dangling(member.user.clone()))?;
        }
        Ok(())
    }

    /// By id or by domain.
    pub fn tenant(&self, name: &str) -> Option<&Tenant> {
        self.tenants
            .iter()
            .find(|tenant| same(&tenant.id, name) || tenant.domains.iter().any(|domain| same(domain, name)))
    }

    pub fn app(&self, client_id: &str) -> Option<&App> {
        self.apps.iter().find(|app| same(&app.client_id, client_id))
    }

    /// By UPN or by object id.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| same(&user.upn, name) || same(&user.oid, name))
    }

    pub fn organization(&self, name: &str) -> Option<&Organization> {
        self.organizations.iter().find(|org| same(&org.name, name))
    }
}

impl Tenant {
    pub fn name(&self) -> &str {
        self.domains.first().unwrap_or(&self.id)
    }
}

impl Organization {
    /// By id or name.
    pub fn project(&self, name: &str) -> Option<&Project> {
        self.projects.iter().find(|project| same(&project.id, name) || same(&project.name, name))
    }

    pub fn member(&self, user: &str) -> Option<&Member> {
        self.members.iter().find(|member| same(&member.user, user))
    }
}

impl Project {
    /// By id or name.
    pub fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories.iter().find(|repo| same(&repo.id, name) || same(&repo.name, name))
    }

    /// Whether the access control lists let this user see the project.
    pub fn is_readable_by(&self, user: &str) -> bool {
        !lists(&self.denied_read, user)
    }
}

impl Repository {
    pub fn branch(&self) -> &str {
        self.default_branch.as_deref().unwrap_or("main")
    }

    /// Whether the access control list lets this user read, be it disabled or not.
    pub fn is_readable_by(&self, user: &str) -> bool {
        !lists(&self.denied_read, user)
    }

    pub fn is_writable_by(&self, user: &str) -> bool {
        self.is_readable_by(user) && lists(&self.contribute, user)
    }
}

/// Names are compared as Azure does, without regard to case.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

fn lists(names: &[String], user: &str) -> bool {
    names.iter().any(|name| same(name, user))
}

fn yes() -> bool {
    true
}

fn private() -> String {
    "private".to_owned()
}

fn well_formed() -> String {
    "wellFormed".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_world() {
        let world = World::example();
        let org = world.organization("CONTOSO").unwrap();
        let project = org.project("data platform").unwrap();

        assert_eq!(world.tenant("contoso.com").unwrap().name(), "contoso.com");
        assert!(!project.repository("secret").unwrap().is_readable_by("svc@contoso.com"));
        assert!(project.repository("analytics").unwrap().is_writable_by("svc@contoso.com"));
        assert!(org.project("website").unwrap().repository("website").is_some());
    }

    #[test]
    fn a_word_that_is_not_known_is_refused() {
        assert!(matches!(World::from_toml("tenant = 1"), Err(WorldError::Syntax(_))));
    }

    #[test]
    fn a_member_who_does_not_exist_is_refused() {
        let text = "[[organizations]]\nname = \"a\"\nmembers = [{ user = \"nobody\" }]\n";

        assert!(matches!(World::from_toml(text), Err(WorldError::Dangling(name)) if name == "nobody"));
    }
}
