//! Which caller may do what for which account, decided before anything else is touched (P2).
//!
//! # Invariants
//!
//! 1. Default deny: what no rule allows is not allowed. There are no rules that forbid, so the order of
//!    rules means nothing and a decision cannot be weakened by reordering.
//! 2. [`Allowed`] comes into being only in [`Policy::decide`]. Use
//!    cases demand it, so that forgetting the decision does not compile.
//! 3. A decision is pure: no IO, no clock, no memory of earlier ones. Budgets and developer assertions
//!    are decided elsewhere, after this.
//!
//! What it deliberately does not do: know what exists. An account that nobody ever saw is decided like
//! any other, so that a refusal teaches nothing.

mod file;
mod pattern;
mod permission;

use crate::caller::Caller;
use crate::ids::AccountId;

pub use file::{PolicyError, PolicyProblem};
use pattern::{AccountPattern, CallerPattern};
pub use permission::Permission;
use permission::Permissions;

/// The rules in force. The default has none and allows nothing.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// A decision that was made: this caller may do this to this account.
#[derive(Clone, Debug)]
#[must_use]
pub struct Allowed {
    caller: Caller,
    permission: Permission,
    account: AccountId,
}

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    callers: Vec<CallerPattern>,
    accounts: Vec<AccountPattern>,
    allow: Permissions,
}

impl Policy {
    /// Reads the rules of a `policy.toml`, or tells everything that is wrong with it.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        file::parse(text)
    }

    pub fn rules_count(&self) -> usize {
        self.rules.len()
    }

    /// Decides about an account. A permission about the broker is never given here.
    pub fn decide(&self, caller: &Caller, permission: Permission, account: &AccountId) -> Option<Allowed> {
        self.matching(caller, permission, Some(account)).next()?;
        Some(Allowed { caller: caller.clone(), permission, account: account.clone() })
    }

    /// Decides about the broker itself. A permission about accounts is never given here.
    pub fn allows_about_broker(&self, caller: &Caller, permission: Permission) -> bool {
        self.matching(caller, permission, None).next().is_some()
    }

    /// Whether any account may be asked about: a caller without that may not even ask for the list.
    pub fn allows_some_account(&self, caller: &Caller, permission: Permission) -> bool {
        let of_caller = |rule: &Rule| {
            rule.allow.contains(permission) && rule.callers.iter().any(|pattern| pattern.matches(caller))
        };
        !permission.is_about_broker() && self.rules.iter().any(of_caller)
    }

    /// The names of all rules that allow it; an unnamed rule is called by its place, such as `rule[2]`.
    pub fn explain(&self, caller: &Caller, permission: Permission, account: Option<&AccountId>) -> Vec<&str> {
        self.matching(caller, permission, account).map(|rule| rule.name.as_str()).collect()
    }

    /// The one place that says what a rule means: decisions and explanations cannot differ.
    fn matching(
        &self,
        caller: &Caller,
        permission: Permission,
        account: Option<&AccountId>,
    ) -> impl Iterator<Item = &Rule> {
        let asked_rightly = permission.is_about_broker() == account.is_none();
        self.rules.iter().filter(move |rule| {
            asked_rightly
                && rule.allow.contains(permission)
                && account.is_none_or(|account| rule.accounts.iter().any(|pattern| pattern.matches(account)))
                && rule.callers.iter().any(|pattern| pattern.matches(caller))
        })
    }
}

impl Allowed {
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    pub fn permission(&self) -> Permission {
        self.permission
    }

    /// The account it is about: use cases take it from here, so that no decision serves another.
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// A decision nobody made, for tests of what comes after it.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_tests(caller: Caller, permission: Permission, account: AccountId) -> Self {
        Self { caller, permission, account }
    }
}

#[cfg(test)]
mod tests;
