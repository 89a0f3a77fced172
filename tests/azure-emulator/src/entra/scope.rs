//! Scope strings: which resource they name, and which permissions of it.

use super::errors::Refusal;

pub(crate) const DEVOPS_ID: &str = "499b84ac-1321-427f-aa17-267ca6975798";
const DEVOPS_URI: &str = "https://app.vssps.visualstudio.com";
const GRAPH_ID: &str = "00000003-0000-0000-c000-000000000000";

/// A scope string, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Scope {
    /// The id of the resource.
    pub(super) resource: String,
    /// Permissions of the resource, such as `user_impersonation` or `.default`.
    pub(super) permissions: Vec<String>,
    /// `openid`, `profile`, `email`, `offline_access`.
    pub(super) oidc: Vec<String>,
}

impl Scope {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut scope = Self { resource: String::new(), permissions: Vec::new(), oidc: Vec::new() };
        for word in text.split_whitespace() {
            if matches!(word, "openid" | "profile" | "email" | "offline_access") {
                scope.oidc.push(word.to_owned());
                continue;
            }
            let (resource, permission) = resource_of(word)?;
            if !scope.resource.is_empty() && scope.resource != resource {
                return Err(invalid(70_011, "the scope names more than one resource", text));
            }
            resource.clone_into(&mut scope.resource);
            scope.permissions.push(permission.to_owned());
        }
        let has_default = scope.permissions.iter().any(|permission| permission == ".default");
        if has_default && scope.permissions.len() > 1 {
            let problem = ".default scope can't be combined with resource-specific scopes";
            return Err(invalid(70_011, problem, text));
        }
        if scope.resource.is_empty() {
            GRAPH_ID.clone_into(&mut scope.resource);
        }
        Ok(scope)
    }

    pub(super) fn has(&self, oidc: &str) -> bool {
        self.oidc.iter().any(|word| word == oidc)
    }

    pub(super) fn is_devops(&self) -> bool {
        self.resource == DEVOPS_ID
    }

    /// What the answer says: the permissions of the resource, without the words of `OpenID`
    /// unless it is `reordered`.
    pub(super) fn granted(&self, permissions: &[String], reordered: bool) -> String {
        let is_default = self.permissions == [".default"] && self.is_devops();
        let default = is_default.then(|| ".default".to_owned());
        let all = permissions.iter().chain(&default);
        let mut granted: Vec<String> =
            all.map(|permission| format!("{}/{permission}", self.resource)).collect();
        if granted.is_empty() {
            granted.clone_from(&self.oidc);
        } else if reordered {
            granted.extend_from_slice(&self.oidc);
            granted.reverse();
        }
        granted.join(" ")
    }
}

fn resource_of(word: &str) -> Result<(&'static str, &str), Refusal> {
    let Some((resource, permission)) = word.rsplit_once('/') else {
        return Ok((GRAPH_ID, word));
    };
    match resource {
        DEVOPS_ID | DEVOPS_URI => Ok((DEVOPS_ID, permission)),
        GRAPH_ID | "https://graph.microsoft.com" => Ok((GRAPH_ID, permission)),
        _ => {
            let text = format!("The resource principal named {resource} was not found in the tenant.");
            Err(Refusal::new(500_011, "invalid_resource", &text))
        }
    }
}

pub(super) fn invalid(code: u32, problem: &str, scope: &str) -> Refusal {
    let text = format!(
        "The provided request must include a valid 'scope': {problem}. The scope {scope} is not valid."
    );
    Refusal::new(code, "invalid_scope", &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_does_not_mix_with_other_permissions() {
        let mixed = format!("{DEVOPS_ID}/user_impersonation {DEVOPS_ID}/.default");

        assert_eq!(Scope::parse(&mixed).unwrap_err().code, 70_011);
        assert!(Scope::parse(&format!("{DEVOPS_ID}/.default offline_access")).is_ok());
    }

    #[test]
    fn a_bare_word_belongs_to_graph() {
        assert!(!Scope::parse("user_impersonation openid").unwrap().is_devops());
    }
}
