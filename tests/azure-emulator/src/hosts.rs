//! The names of the real services, and which part of the emulator plays each.

pub(crate) const LOCALHOST: &str = "localhost";
pub(crate) const LOGIN: &str = "login.microsoftonline.com";
const DEVOPS: &str = "dev.azure.com";
const DEVOPS_PROFILE: &str = "app.vssps.visualstudio.com";
const DEVOPS_IDENTITY: &str = "vssps.dev.azure.com";
const LEGACY: &str = ".visualstudio.com";

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Entra,
    /// Azure DevOps, with the organization in the path.
    Devops,
    /// `{org}.visualstudio.com`.
    LegacyDevops(String),
    /// The host of profiles and accounts, which belongs to no organization.
    Profile,
}

/// The role of a host, `None` for hosts that are none of ours.
pub(crate) fn role(host: &str) -> Option<Role> {
    match host {
        LOGIN => Some(Role::Entra),
        DEVOPS | DEVOPS_IDENTITY => Some(Role::Devops),
        DEVOPS_PROFILE => Some(Role::Profile),
        _ => {
            let organization = host.strip_suffix(LEGACY)?;
            let is_one_label = !organization.is_empty() && !organization.contains('.');
            is_one_label.then(|| Role::LegacyDevops(organization.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_of_the_contract_have_a_role() {
        assert_eq!(role("contoso.visualstudio.com"), Some(Role::LegacyDevops("contoso".to_owned())));
        assert_eq!(role("app.vssps.visualstudio.com"), Some(Role::Profile));
        assert_eq!(role("a.b.visualstudio.com"), None);
        assert_eq!(role("example.com"), None);
    }
}
