//! The repositories of an organization, and which of them a token may read (azure.md 3.5, 3.6).
//!
//! A list whose count and length differ, that breaks off, or that holds an item nobody understands
//! is an error as a whole: a shortened list is never presented as complete (P7). Disabled repositories are
//! listed and flagged; what to do with them is not decided here.

use serde::{Deserialize, Serialize};

use super::DevopsError;

/// One repository as Azure DevOps describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Repository {
    pub id: String,
    pub name: String,
    pub project_id: String,
    pub project: String,
    /// `refs/heads/main`; none while the repository is empty.
    pub default_branch: Option<String>,
    pub remote_url: String,
    pub ssh_url: String,
    pub web_url: String,
    /// In bytes.
    pub size: u64,
    pub is_disabled: bool,
    pub is_in_maintenance: bool,
}

/// What names a repository for a permission check.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RepositoryId {
    pub project_id: String,
    pub id: String,
}

#[derive(Deserialize)]
struct List {
    count: usize,
    value: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: String,
    name: String,
    project: Project,
    default_branch: Option<String>,
    remote_url: Option<String>,
    ssh_url: Option<String>,
    web_url: Option<String>,
    size: Option<u64>,
    is_disabled: Option<bool>,
    is_in_maintenance: Option<bool>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
    name: String,
}

/// The body of a batch of permission checks.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Questions {
    always_allow_administrators: bool,
    evaluations: Vec<Question>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    security_namespace_id: &'static str,
    token: String,
    permissions: u32,
}

#[derive(Deserialize)]
struct Decisions {
    evaluations: Vec<Decision>,
}

#[derive(Deserialize)]
struct Decision {
    token: String,
    permissions: u32,
    value: bool,
}

impl Repository {
    pub fn repository_id(&self) -> RepositoryId {
        RepositoryId { project_id: self.project_id.clone(), id: self.id.clone() }
    }
}

impl RepositoryId {
    /// The name of a repository in the security namespace.
    fn security_token(&self) -> String {
        format!("repoV2/{}/{}", self.project_id, self.id)
    }
}

impl From<Item> for Repository {
    fn from(item: Item) -> Self {
        Self {
            id: item.id,
            name: item.name,
            project_id: item.project.id,
            project: item.project.name,
            default_branch: item.default_branch.filter(|branch| !branch.is_empty()),
            remote_url: item.remote_url.unwrap_or_default(),
            ssh_url: item.ssh_url.unwrap_or_default(),
            web_url: item.web_url.unwrap_or_default(),
            size: item.size.unwrap_or_default(),
            is_disabled: item.is_disabled.unwrap_or_default(),
            is_in_maintenance: item.is_in_maintenance.unwrap_or_default(),
        }
    }
}

pub(super) fn parse(body: &[u8]) -> Result<Vec<Repository>, DevopsError> {
    let list: List = serde_json::from_slice(body).map_err(|_| DevopsError::Unparseable)?;
    if list.count == list.value.len() {
        Ok(list.value.into_iter().map(Repository::from).collect())
    } else {
        Err(DevopsError::Unparseable)
    }
}

pub(super) fn read_questions(repos: &[RepositoryId]) -> Questions {
    let ask = |repo: &RepositoryId| Question {
        security_namespace_id: GIT_REPOSITORIES,
        token: repo.security_token(),
        permissions: GENERIC_READ,
    };
    Questions { always_allow_administrators: false, evaluations: repos.iter().map(ask).collect() }
}

/// One decision per question, in the order of the questions; anything else would give one
/// repository the permission of another.
pub(super) fn parse_read_answers(body: &[u8], asked: &[RepositoryId]) -> Result<Vec<bool>, DevopsError> {
    let decisions: Decisions = serde_json::from_slice(body).map_err(|_| DevopsError::Unparseable)?;
    let answers = |(decision, repo): (&Decision, &RepositoryId)| {
        decision.permissions == GENERIC_READ && decision.token.eq_ignore_ascii_case(&repo.security_token())
    };
    let decisions = decisions.evaluations;
    if decisions.len() == asked.len() && decisions.iter().zip(asked).all(answers) {
        Ok(decisions.into_iter().map(|decision| decision.value).collect())
    } else {
        Err(DevopsError::Unparseable)
    }
}

/// The security namespace of git repositories.
const GIT_REPOSITORIES: &str = "2e9eb7ed-3c0a-47d4-87c1-0ffdd275fd87";
/// Its bit for reading.
const GENERIC_READ: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"id":"R1","name":"analytics","url":"https://x","project":{"id":"P1","name":"Data Platform","state":"wellFormed"},
        "defaultBranch":"refs/heads/main","size":10437,"remoteUrl":"https://contoso@dev.azure.com/contoso/Data%20Platform/_git/analytics",
        "sshUrl":"git@ssh.dev.azure.com:v3/contoso/Data%20Platform/analytics","webUrl":"https://dev.azure.com/w","isDisabled":true,"isInMaintenance":false}"#;
    const BARE: &str = r#"{"id":"R2","name":"empty","project":{"id":"P1","name":"Data Platform"}}"#;

    fn repo(id: &str) -> RepositoryId {
        RepositoryId { project_id: "P1".into(), id: id.into() }
    }

    #[test]
    fn a_list_is_read_with_all_and_with_few_fields() {
        let repos = parse(format!(r#"{{"count":2,"value":[{FULL},{BARE}]}}"#).as_bytes()).unwrap();
        assert_eq!(repos[0].project, "Data Platform");
        assert_eq!(repos[0].default_branch.as_deref(), Some("refs/heads/main"));
        assert_eq!((repos[0].size, repos[0].is_disabled), (10_437, true));
        assert_eq!(
            (repos[1].default_branch.as_deref(), repos[1].size, repos[1].is_disabled),
            (None, 0, false)
        );
        assert_eq!(repos[0].repository_id(), repo("R1"));
        assert!(parse(br#"{"count":0,"value":[]}"#).unwrap().is_empty());
    }

    #[test]
    fn a28_a_list_that_is_not_whole_is_an_error() {
        for body in [
            format!(r#"{{"count":3,"value":[{FULL},{BARE}]}}"#),
            format!(r#"{{"count":1,"value":[{FULL},{BARE}]}}"#),
            format!(r#"{{"count":2,"value":[{FULL},"#),
            format!(r#"{{"count":2,"value":[{FULL},{{"id":"R3"}}]}}"#),
            format!(r#"{{"value":[{FULL}]}}"#),
            r#"{"count":0}"#.to_owned(),
        ] {
            assert!(matches!(parse(body.as_bytes()), Err(DevopsError::Unparseable)), "{body}");
        }
    }

    #[test]
    fn a_permission_check_asks_about_reading_each_repository() {
        let questions = serde_json::to_value(read_questions(&[repo("R1")])).unwrap();
        let expected = serde_json::json!({"alwaysAllowAdministrators": false, "evaluations": [
            {"securityNamespaceId": GIT_REPOSITORIES, "token": "repoV2/P1/R1", "permissions": 2}
        ]});
        assert_eq!(questions, expected);
    }

    #[test]
    fn a_decision_belongs_to_its_repository_or_is_none() {
        let asked = [repo("R1"), repo("R2")];
        let yes = r#"{"token":"repoV2/p1/r1","permissions":2,"value":true}"#;
        let no = r#"{"token":"repoV2/P1/R2","permissions":2,"value":false}"#;
        let read = |evaluations: &str| {
            parse_read_answers(format!(r#"{{"evaluations":[{evaluations}]}}"#).as_bytes(), &asked)
        };
        assert_eq!(read(&format!("{yes},{no}")).unwrap(), [true, false]);
        for wrong in [
            format!("{no},{yes}"),
            yes.to_owned(),
            format!("{yes},{no},{no}"),
            format!(r#"{yes},{{"token":"repoV2/P1/R2","permissions":2}}"#),
            format!(r#"{yes},{{"token":"repoV2/P1/R2","permissions":4,"value":true}}"#),
        ] {
            assert!(matches!(read(&wrong), Err(DevopsError::Unparseable)), "{wrong}");
        }
    }
}
