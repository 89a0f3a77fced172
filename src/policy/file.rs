//! The policy as it is written, and everything that is wrong with it at once.
//!
//! A file parses completely or not at all: no rule is ever skipped, because a policy that lost a rule
//! is another policy.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;

use super::pattern::{AccountPattern, CallerPattern};
use super::permission::{Permission, Permissions};
use super::{Policy, Rule};

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy is not the TOML it should be")]
    Syntax(#[source] Box<toml::de::Error>),
    #[error("the policy has {} rules, at most {RULES_MAX} are allowed", rules)]
    TooManyRules { rules: usize },
    #[error("the policy is wrong: {}", listed(problems))]
    Invalid { problems: Vec<PolicyProblem> },
}

/// One thing wrong with a policy, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyProblem {
    /// Such as `rule[2].callers[0]`.
    pub place: String,
    pub problem: String,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.problem)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    #[serde(default, rename = "rule")]
    rules: Vec<RawRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: Option<String>,
    #[serde(default)]
    callers: Vec<String>,
    #[serde(default)]
    accounts: Vec<String>,
    #[serde(default)]
    allow: Vec<String>,
}

pub(super) fn parse(text: &str) -> Result<Policy, PolicyError> {
    let raw: RawPolicy = toml::from_str(text).map_err(|error| PolicyError::Syntax(Box::new(error)))?;
    if RULES_MAX < raw.rules.len() {
        return Err(PolicyError::TooManyRules { rules: raw.rules.len() });
    }
    let mut problems = Problems::default();
    let mut names = HashSet::new();
    let rules = raw.rules.into_iter().enumerate().map(|(index, raw)| {
        let place = format!("rule[{index}]");
        let rule = rule(&place, raw, &mut problems);
        if !names.insert(rule.name.clone()) {
            problems.add(format!("{place}.name"), "is the name of another rule too");
        }
        rule
    });
    let rules = rules.collect();
    if problems.0.is_empty() {
        Ok(Policy { rules })
    } else {
        Err(PolicyError::Invalid { problems: problems.0 })
    }
}

/// The rule, without what was wrong with it: good only if no problem was added.
fn rule(place: &str, raw: RawRule, problems: &mut Problems) -> Rule {
    let callers = problems.check_each(&format!("{place}.callers"), &raw.callers, |text| {
        CallerPattern::parse(text).map_err(str::to_owned)
    });
    let accounts = problems.check_each(&format!("{place}.accounts"), &raw.accounts, AccountPattern::parse);
    let allow = permissions(&format!("{place}.allow"), &raw.allow, problems);
    if raw.callers.is_empty() {
        problems.add(format!("{place}.callers"), "must name at least one caller");
    }
    let about_accounts = |permission: Permission| !permission.is_about_broker() && allow.contains(permission);
    if raw.accounts.is_empty() && Permission::ALL.into_iter().any(about_accounts) {
        problems.add(format!("{place}.accounts"), "must name at least one account for what the rule allows");
    }
    if raw.name.as_ref().is_some_and(|name| name.is_empty() || name.chars().any(char::is_control)) {
        problems.add(format!("{place}.name"), "must be printable and not empty");
    }
    Rule { name: raw.name.unwrap_or_else(|| place.to_owned()), callers, accounts, allow }
}

fn permissions(place: &str, texts: &[String], problems: &mut Problems) -> Permissions {
    if let [only] = texts
        && only == "*"
    {
        return Permissions::all();
    }
    if texts.is_empty() {
        problems.add(place.to_owned(), "must allow something");
    }
    let listed = problems.check_each(place, texts, |text| match Permission::parse(text) {
        Some(permission) => Ok(permission),
        None if text == "*" => Err("must stand alone".to_owned()),
        None => Err("is no permission".to_owned()),
    });
    let mut permissions = Permissions::default();
    for permission in listed {
        permissions.insert(permission);
    }
    permissions
}

#[derive(Default)]
struct Problems(Vec<PolicyProblem>);

impl Problems {
    fn add(&mut self, place: String, problem: impl Into<String>) {
        self.0.push(PolicyProblem { place, problem: problem.into() });
    }

    fn check_each<T>(
        &mut self,
        place: &str,
        texts: &[String],
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut checked = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match check(text) {
                Ok(value) => checked.push(value),
                Err(problem) => self.add(format!("{place}[{index}]"), problem),
            }
        }
        checked
    }
}

fn listed(problems: &[PolicyProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A decision walks all rules on the hot path; more rules than this want account patterns instead.
const RULES_MAX: usize = 1_000;
