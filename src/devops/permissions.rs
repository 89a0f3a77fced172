//! Which repositories a token may read (azure.md 3.6).

use serde::{Deserialize, Serialize};

use super::DevopsError;

/// What names a repository for a permission check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RepositoryId<'a> {
    pub project_id: &'a str,
    pub id: &'a str,
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

impl RepositoryId<'_> {
    /// The name of a repository in the security namespace.
    fn security_token(self) -> String {
        format!("repoV2/{}/{}", self.project_id, self.id)
    }
}

pub(super) fn read_questions(repos: &[RepositoryId<'_>]) -> Questions {
    let ask = |repo: &RepositoryId<'_>| Question {
        security_namespace_id: GIT_REPOSITORIES,
        token: repo.security_token(),
        permissions: GENERIC_READ,
    };
    Questions { always_allow_administrators: false, evaluations: repos.iter().map(ask).collect() }
}

/// One decision per question, in the order of the questions; anything else would give one
/// repository the permission of another.
pub(super) fn parse_read_answers(body: &[u8], asked: &[RepositoryId<'_>]) -> Result<Vec<bool>, DevopsError> {
    let decisions: Decisions = serde_json::from_slice(body).map_err(|_| DevopsError::Unparseable)?;
    let answers = |(decision, repo): (&Decision, &RepositoryId<'_>)| {
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

    fn repo(id: &str) -> RepositoryId<'_> {
        RepositoryId { project_id: "P1", id }
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
