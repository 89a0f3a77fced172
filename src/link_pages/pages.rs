//! The pages themselves: one sentence of what is, one of what to do.

use maud::{DOCTYPE, Markup, html};

use crate::connection::{Identity, Role};
use crate::ids::LinkId;
use crate::links::{Completed, PageProblem, Shown};

/// Readable on a phone, in the dark, and at the person's own text size.
pub(super) const STYLE: &str = include_str!("style.css");

/// Who will be connected to what; the only way on is a button.
pub(super) fn show(id: &LinkId, shown: &Shown) -> Markup {
    let role = role_name(&shown.role);
    page(
        "Connect Azure DevOps",
        &html! {
            p { "You are about to connect Azure DevOps as the " strong { (role) } " of " strong { (shown.account) } "." }
            dl {
                dt { "Organization" } dd { "dev.azure.com/" (shown.organization) }
                dt { "Account" } dd { (shown.account) }
                @if let Some(actor) = &shown.actor { dt { "Asked for by" } dd { (actor) } }
                @if let Some(login) = &shown.expected_login { dt { "Sign in as" } dd { (login) } }
            }
            p {
                "On the next page Microsoft asks you to sign in. "
                @if shown.role == Role::ServiceUser {
                    "Choose the service user's account, not your own: what it may read is what "
                    (shown.account) " may read."
                } @else {
                    "Choose your own account."
                }
            }
            form method="post" action={ "/link/" (id) } {
                button type="submit" { "Continue to Microsoft" }
            }
            p.quiet { "If you did not expect this page, close it. Nothing has been connected." }
        },
    )
}

/// How the sign-in ended.
pub(super) fn completed(completed: &Completed) -> Markup {
    match completed {
        Completed::Verified { account, identity, replaces } => page(
            "Signed in",
            &html! {
                p.good role="status" {
                    strong { (person(identity)) } " signed in for " strong { (account) } "."
                }
                @if let Some(replaced) = replaces {
                    p { "Once confirmed, it replaces " strong { (person(replaced)) } "." }
                }
                p { "Nothing is connected yet. Go back to where you began and confirm that this is the right account." }
                p.quiet { "You may close this page." }
            },
        ),
        Completed::Held => page(
            "Almost done",
            &html! {
                p role="status" { "You are signed in, but Microsoft does not answer the last check yet." }
                p { "Go back to where you began; the check is made again there. You may close this page." }
            },
        ),
        Completed::Ended(end) => page(
            "Not connected",
            &html! {
                p.bad role="alert" { (end.message) }
                p.quiet { "Nothing was connected. You may close this page." }
            },
        ),
    }
}

/// Why a page cannot go on.
pub(super) fn problem(problem: PageProblem) -> Markup {
    let (what, then) = match problem {
        PageProblem::Unknown => ("This link is not valid.", BEGIN_AGAIN),
        PageProblem::Expired => ("This link has expired.", BEGIN_AGAIN),
        PageProblem::Used => (
            "This link was used already.",
            "If you have just signed in, all is well: go back to where you began. Otherwise begin again there.",
        ),
        PageProblem::Over => ("This link is over.", BEGIN_AGAIN),
        PageProblem::OtherBrowser => (
            "This link was opened in another browser, or cookies are blocked here.",
            "Go on in the browser you opened it with, or begin again and allow cookies for this page.",
        ),
        PageProblem::OtherRole => (
            "Microsoft sent you to an address that is not for this link.",
            "Begin again. If this page comes back, whoever registered the app must check its two redirect URIs.",
        ),
        PageProblem::Unavailable => (
            "The link cannot be finished at the moment.",
            "Wait a minute, then go back to where you began: it shows how far the link came.",
        ),
    };
    // Whoever reloads the last page comes here too, with all done.
    let title = if problem == PageProblem::Used { "Nothing more to do here" } else { "Not connected" };
    page(title, &html! { p.bad role="alert" { (what) } p { (then) } })
}

fn page(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (title) }
                link rel="stylesheet" href="/link/style.css";
            }
            body { main { h1 { (title) } (body) } }
        }
    }
}

fn person(identity: &Identity) -> String {
    match (identity.display_name.as_str(), identity.login.as_str()) {
        ("", login) => login.to_owned(),
        (name, "") => name.to_owned(),
        (name, login) => format!("{login} ({name})"),
    }
}

fn role_name(role: &Role) -> String {
    match role {
        Role::Developer(developer) => format!("developer {developer}"),
        Role::ServiceUser | Role::ServicePrincipal => role.kind().to_owned(),
    }
}

const BEGIN_AGAIN: &str = "Go back to where you began and begin again.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a38_names_from_elsewhere_are_escaped() {
        let shown = Shown {
            account: "acme".parse().unwrap(),
            organization: "contoso".parse().unwrap(),
            role: Role::ServiceUser,
            actor: Some("<script>alert(1)</script>".to_owned()),
            expected_login: None,
        };
        let html = show(&"id".parse().unwrap(), &shown).into_string();
        assert!(!html.contains("<script"), "{html}");
        assert!(html.contains("&lt;script&gt;"), "{html}");
    }
}
