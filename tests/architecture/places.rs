//! What may be done in few places only, so that a reviewer knows where to look.

use crate::paths::{Named, Read, library};
use crate::source::Source;

/// The only files that may look inside a secret. The list is exact: who no longer needs it leaves it.
const MAY_EXPOSE: &[&str] = &[
    // The types themselves, and what is made from a secret without showing it.
    "src/secret.rs",
    "src/vault/integrations.rs",
    // Into the sealed record.
    "src/vault/integration_record.rs",
    "src/vault/record.rs",
    // Upstream: the token request, the challenge of a verifier, the signature of an id_token, a bearer.
    "src/entra/authorize.rs",
    "src/entra/certificate.rs",
    "src/entra/id_token/mod.rs",
    "src/entra/token/mod.rs",
    "src/devops/mod.rs",
    // Out: a released token, and nothing else.
    "src/grpc/broker.rs",
    // Tests and fakes.
    "src/entra/id_token/tests.rs",
    "src/entra/token/tests.rs",
    "src/testing/entra.rs",
    "src/tokens/tests/given.rs",
    "src/tokens/tests/mod.rs",
];

/// What the standard library and tokio offer everybody, and the house to a few.
struct Rule {
    what: &'static str,
    /// Files, or folders with a `/` at the end.
    allowed: &'static [&'static str],
    breaks: fn(&[&str]) -> bool,
}

const RULES: &[Rule] = &[
    Rule {
        what: "starts a task nobody owns; tasks belong to a component or to `tasks` (S5, S22)",
        allowed: &["src/app.rs", "src/lifecycle.rs", "src/tasks.rs"],
        breaks: |path| {
            ends_with(path, &["tokio", "spawn"])
                || ends_with(path, &["task", "spawn"])
                || ends_with(path, &["Handle", "current"])
        },
    },
    Rule {
        what: "makes a gRPC status; only src/grpc/status.rs does (S12)",
        allowed: &["src/grpc/status.rs"],
        breaks: |path| {
            path.windows(2)
                .any(|pair| pair[0] == "Status" && pair[1].starts_with(|first: char| first.is_lowercase()))
        },
    },
    Rule {
        what: "names gRPC's status, which is the business of the wire's two ends (S12)",
        allowed: &["src/grpc/", "src/client/", "src/cli/", "src/git_credential/"],
        breaks: |path| path.contains(&"Status") && path.contains(&"tonic"),
    },
    Rule {
        what: "reads the environment; only configuration and the client do (S30)",
        // The command line asks a person's session, not for settings: PATH, a display, USER.
        allowed: &["src/config/", "src/client/", "src/cli/git_setup.rs", "src/cli/link.rs", "src/cli/mod.rs"],
        breaks: |path| {
            path.windows(2).any(|pair| {
                pair[0] == "env" && (pair[1].starts_with("var") || pair[1].starts_with("set_var"))
            })
        },
    },
];

/// Files that look inside secrets without being listed, and listed ones that do not.
pub(crate) fn exposures(files: &[Source]) -> Vec<String> {
    let (read, mut found) = library(files);
    for Read { file, paths, .. } in &read {
        let listed = MAY_EXPOSE.contains(&file.path.as_str());
        match paths.iter().find(|named| exposes(&strs(named))).map(|named| named.line) {
            Some(line) if !listed => found.push(format!("{}:{line}: looks inside a secret", file.path)),
            None if listed => found.push(format!("{}: is listed and exposes nothing", file.path)),
            _ => (),
        }
    }
    for listed in MAY_EXPOSE {
        if files.iter().all(|file| file.path != *listed) {
            found.push(format!("{listed}: is listed and is not there"));
        }
    }
    found
}

/// Everything else that happens where it should not. Tests may.
pub(crate) fn violations(files: &[Source]) -> Vec<String> {
    let (read, mut found) = library(files);
    for Read { file, paths, .. } in &read {
        for named in paths.iter().filter(|named| !named.in_tests) {
            let path = strs(named);
            for rule in RULES.iter().filter(|rule| (rule.breaks)(&path) && !rule.allows(&file.path)) {
                found.push(format!("{}:{}: {} {}", file.path, named.line, path.join("::"), rule.what));
            }
        }
    }
    found
}

impl Rule {
    fn allows(&self, path: &str) -> bool {
        self.allowed.iter().any(|place| *place == path || (place.ends_with('/') && path.starts_with(place)))
    }
}

fn strs(named: &Named) -> Vec<&str> {
    named.segments.iter().map(String::as_str).collect()
}

fn ends_with(path: &[&str], end: &[&str]) -> bool {
    path.ends_with(end)
}

/// By method or by path, ours or `secrecy`'s.
fn exposes(path: &[&str]) -> bool {
    path.iter().any(|word| *word == "expose" || word.starts_with("expose_secret") || *word == "ExposeSecret")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(path: &str, text: &str) -> Vec<String> {
        violations(&[Source::new(path, text)])
    }

    /// What is said of one planted file; the listed ones are not there.
    fn exposed(path: &str, text: &str) -> Vec<String> {
        let mut said = exposures(&[Source::new(path, text)]);
        said.retain(|line| line.starts_with(path));
        said
    }

    #[test]
    fn a_look_into_a_secret_is_found_in_every_shape() {
        for text in [
            "fn f() { token.expose(); }",
            "fn f() { let see = AccessToken::expose; see(&token); }",
            "fn f() { tokens.iter().map(AccessToken::expose) }",
            "fn f() { token.0.expose_secret(); }",
            "fn f() { token.0.expose_secret_mut(); }",
            "use secrecy::ExposeSecret;",
            "use secrecy::{ExposeSecret as _, SecretString};",
            "fn f() { tracing::info!(token = token.expose()); }",
            "#[cfg(test)] mod tests { fn f() { token.expose(); } }",
        ] {
            assert_eq!(exposed("src/links/mod.rs", text).len(), 1, "{text}");
        }
        assert!(exposed("src/links/mod.rs", "// token.expose()\n/// `expose`\nfn f() {}").is_empty());
        assert!(exposed("tests/it/main.rs", "fn f() { token.expose(); }").is_empty());
        assert!(exposed("src/vault/record.rs", "fn f() { token.expose(); }").is_empty());
    }

    #[test]
    fn the_list_of_exposing_files_is_exact() {
        assert_eq!(
            exposed("src/vault/record.rs", "fn f() {}"),
            ["src/vault/record.rs: is listed and exposes nothing"]
        );
        assert_eq!(exposures(&[]).len(), MAY_EXPOSE.len());
    }

    #[test]
    fn a_task_of_nobody_is_found() {
        for text in [
            "fn f() { tokio::spawn(work); }",
            "fn f() { tokio::task::spawn(work); }",
            "use tokio::spawn;",
            "use tokio::{net, task::{JoinSet, spawn as go}};",
            "use tokio::task; fn f() { task::spawn(work); }",
            "fn f() { tokio::runtime::Handle::current().spawn(work); }",
            "fn f() { tokio::select! { _ = tokio::spawn(work) => () } }",
        ] {
            assert_eq!(planted("src/tokens/mod.rs", text).len(), 1, "{text}");
            assert!(planted("src/tasks.rs", text).is_empty(), "{text}");
        }
        for text in [
            "fn f() { tokio::task::spawn_blocking(work); self.running.spawn(work); }",
            "#[cfg(test)] mod tests { fn f() { tokio::spawn(work); } }",
        ] {
            assert!(planted("src/tokens/mod.rs", text).is_empty(), "{text}");
        }
        let declares = Source::new("src/tokens/mod.rs", "#[cfg(test)]\nmod trials;");
        let trials = || Source::new("src/tokens/trials.rs", "fn f() { tokio::spawn(work); }");
        assert_eq!(violations(&[declares, trials()]), Vec::<String>::new());
        assert_eq!(violations(&[trials()]).len(), 1);
    }

    #[test]
    fn a_status_made_elsewhere_is_found() {
        for text in [
            "use tonic::{Request, Status}; fn f() { Status::internal(\"no\") }",
            "fn f() { x.map_err(tonic::Status::from_error) }",
        ] {
            assert_eq!(planted("src/grpc/broker.rs", text).len(), 1, "{text}");
            assert!(planted("src/grpc/status.rs", text).is_empty(), "{text}");
            assert!(!planted("src/release/mod.rs", text).is_empty(), "{text}");
        }
        assert!(planted("src/grpc/broker.rs", "use tonic::Status; fn f() -> Status {}").is_empty());
        assert_eq!(planted("src/release/mod.rs", "use tonic::{Code, Status};").len(), 1);
    }

    #[test]
    fn a_look_into_the_environment_is_found() {
        for text in [
            "fn f() { std::env::var(\"X\") }",
            "use std::env; fn f() { env::var_os(\"X\"); }",
            "use std::{fs, env::vars};",
        ] {
            assert_eq!(planted("src/tls/mod.rs", text).len(), 1, "{text}");
            assert!(planted("src/config/mod.rs", text).is_empty(), "{text}");
            assert!(planted("src/client/mod.rs", text).is_empty(), "{text}");
        }
        assert!(planted("src/tls/mod.rs", "fn f() { std::env::args() }").is_empty());
    }
}
