//! What exists: tenants, apps, users, organizations, projects and repositories.
//!
//! A world is data, read from TOML. Names are resolved here, in one place; who may do what is
//! decided by those who ask.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::credentials;
pub use crate::generated::Generated;

/// The world file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct World {
    pub tenants: Vec<Tenant>,
    pub apps: Vec<App>,
    pub users: Vec<User>,
    pub organizations: Vec<Organization>,
    /// Issuers of federated assertions, with the keys that Entra would fetch from them.
    pub issuers: Vec<TrustedIssuer>,
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
    /// Each as PEM, or as base64 of DER.
    #[serde(default)]
    pub certificates: Vec<String>,
    #[serde(default)]
    pub federated: Vec<FederatedCredential>,
    /// Tenants of which something is to be said about the service principal.
    #[serde(default)]
    pub service_principals: Vec<ServicePrincipal>,
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

/// Whose assertions an app accepts in place of a secret. All is compared exactly.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FederatedCredential {
    pub issuer: String,
    pub subject: String,
    #[serde(default = "exchange_audience")]
    pub audiences: Vec<String>,
}

/// An issuer of federated assertions.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedIssuer {
    pub issuer: String,
    /// Each a JWK (a table), or the PEM of a public key or certificate (a text). RSA only.
    pub keys: Vec<serde_json::Value>,
}

/// An app in one tenant. Without an entry it is there when the tenant is its home, when an
/// administrator has consented, or when a user has.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePrincipal {
    /// Id or domain.
    pub tenant: String,
    /// Follows from tenant and client id when absent.
    #[serde(default)]
    pub oid: Option<String>,
    /// `false`: it was deleted.
    #[serde(default = "yes")]
    pub present: bool,
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

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
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
    /// Repositories by the dozen, besides those above.
    #[serde(default)]
    pub generated: Option<Generated>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
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
    #[error("app {0}: a certificate is neither PEM nor base64 of DER")]
    Certificate(String),
    #[error("issuer {0}: a key is neither a JWK of RSA nor PEM")]
    Key(String),
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
        let principals = self.apps.iter().flat_map(|app| &app.service_principals).map(|it| &it.tenant);
        for tenant in homes.chain(consents).chain(users).chain(connected).chain(principals) {
            self.tenant(tenant).ok_or_else(|| WorldError::Dangling(tenant.clone()))?;
        }
        for member in self.organizations.iter().flat_map(|org| &org.members) {
            let known = self.user(&member.user).is_some() || self.app(&member.user).is_some();
            known.then_some(()).ok_or_else(|| WorldError::Dangling(member.user.clone()))?;
        }
        for app in &self.apps {
            let is_good = app.certificates.iter().all(|text| credentials::Certificate::read(text).is_some());
            is_good.then_some(()).ok_or_else(|| WorldError::Certificate(app.client_id.clone()))?;
        }
        for issuer in &self.issuers {
            let is_good = issuer.keys.iter().all(|key| credentials::read_key(key).is_some());
            is_good.then_some(()).ok_or_else(|| WorldError::Key(issuer.issuer.clone()))?;
        }
        Ok(())
    }

    /// By id or by domain.
    pub fn tenant(&self, name: &str) -> Option<&Tenant> {
        self.tenants.iter().find(|tenant| tenant.is_called(name))
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

    /// By id or by domain.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        same(&self.id, name) || self.domains.iter().any(|domain| same(domain, name))
    }
}

impl App {
    /// What the world file says of it in this tenant.
    pub(crate) fn service_principal(&self, tenant: &Tenant) -> Option<&ServicePrincipal> {
        self.service_principals.iter().find(|it| tenant.is_called(&it.tenant))
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
    /// By id or name. One that is written down goes before one that is generated.
    pub fn repository(&self, name: &str) -> Option<Cow<'_, Repository>> {
        let written = self.repositories.iter().find(|repo| same(&repo.id, name) || same(&repo.name, name));
        let generated = || self.generated.as_ref()?.find(&self.id, name).map(Cow::Owned);
        written.map(Cow::Borrowed).or_else(generated)
    }

    /// Those that are written down, then those that are generated and not written down too.
    pub fn all_repositories(&self) -> impl Iterator<Item = Cow<'_, Repository>> {
        let generated = self.generated.iter().flat_map(|generated| {
            (0..generated.count).map(|n| generated.repository(&self.id, n)).filter(|repository| {
                !self.repositories.iter().any(|written| same(&written.id, &repository.id))
            })
        });
        self.repositories.iter().map(Cow::Borrowed).chain(generated.map(Cow::Owned))
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
    let is_ascii = one.is_ascii() && other.is_ascii();
    one.eq_ignore_ascii_case(other) || (!is_ascii && one.to_lowercase() == other.to_lowercase())
}

fn lists(names: &[String], user: &str) -> bool {
    names.iter().any(|name| same(name, user))
}

fn yes() -> bool {
    true
}

fn exchange_audience() -> Vec<String> {
    vec!["api://AzureADTokenExchange".to_owned()]
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
