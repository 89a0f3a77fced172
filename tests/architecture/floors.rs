//! Modules stand on floors and use what is below them, never what is above or beside.

use crate::paths::{Named, Read, library};
use crate::source::Source;

struct Floor {
    name: &'static str,
    modules: &'static [&'static str],
    /// Whether its modules may use each other: words explain words, and composition composes.
    among_themselves: bool,
}

/// Lower floors first (design.md 5). Who adds a module puts it here.
const FLOORS: &[Floor] = &[
    Floor {
        name: "0, vocabulary",
        modules: &[
            "backoff",
            "caller",
            "clock",
            "connection",
            "event",
            "git_url",
            "ids",
            "reason",
            "remedy",
            "secret",
        ],
        among_themselves: true,
    },
    floor("½, means", &["files", "outgoing", "tasks"]),
    floor(
        "1, mechanisms",
        &["audit", "budgets", "devops", "entra", "keys", "policy", "seal", "store", "tls"],
    ),
    floor("1½, the gate", &["gate"]),
    floor("2, the vault", &["vault"]),
    floor("2½, accounts", &["accounts", "identify"]),
    floor("3, tokens", &["tokens"]),
    floor("4, use cases", &["integrations", "links", "operations", "release", "repos"]),
    floor("5, the wire", &["pb"]),
    floor("5½, the client", &["client"]),
    floor("6, faces", &["admin", "cli", "git_credential", "grpc", "link_pages"]),
    Floor {
        name: "7, composition",
        modules: &["app", "config", "lifecycle", "offline", "process", "telemetry"],
        among_themselves: true,
    },
];

const fn floor(name: &'static str, modules: &'static [&'static str]) -> Floor {
    Floor { name, modules, among_themselves: false }
}

/// The fakes: they stand beside the house, imitate what is below this floor, and serve tests alone.
const TESTING: &str = "testing";
const TESTING_IMITATES_BELOW: &str = "tokens";

/// Every use that goes up, sideways, nowhere, or from the product into the fakes.
pub(crate) fn violations(files: &[Source]) -> Vec<String> {
    let (read, mut found) = library(files);
    for Read { file, modules, paths } in &read {
        let Some(own) = modules.first() else { continue };
        if *own != TESTING && floor_of(own).is_none() {
            found.push(format!("{}: module {own} stands on no floor", file.path));
            continue;
        }
        for named in paths {
            let Some(used) = top_level(named, modules.len()) else { continue };
            if let Err(problem) = may_use(own, used, named.in_tests) {
                found.push(format!("{}:{}: {own} uses {used}, {problem}", file.path, named.line));
            }
        }
    }
    found
}

/// What a path names below the crate's root, by `crate::` or by climbing there; `None` if it stays inside.
fn top_level(named: &Named, file_depth: usize) -> Option<&str> {
    let segments: Vec<&str> = named.segments.iter().map(String::as_str).collect();
    let rest = match segments.as_slice() {
        ["crate", rest @ ..] => rest,
        all => {
            let all = all.strip_prefix(&["self"]).unwrap_or(all);
            let climbs = all.iter().take_while(|segment| **segment == "super").count();
            if climbs == 0 || climbs < file_depth + named.depth {
                return None;
            }
            &all[climbs..]
        }
    };
    match rest {
        // `pub(crate)`, `pub(super)`: no use of anything. Renamed, it is a use of everything.
        [] => named.renamed.then_some("everything"),
        [first, ..] => Some(first),
    }
}

fn may_use(own: &str, used: &str, in_tests: bool) -> Result<(), String> {
    if own == used {
        return Ok(());
    }
    if used == TESTING {
        return if in_tests { Ok(()) } else { Err("which is for tests only".to_owned()) };
    }
    let Some(theirs) = floor_of(used) else { return Err("which stands on no floor".to_owned()) };
    let ours = if own == TESTING { floor_of(TESTING_IMITATES_BELOW) } else { floor_of(own) };
    let ours = ours.expect("the caller looked");
    if theirs < ours || (theirs == ours && own != TESTING && FLOORS[ours].among_themselves) {
        return Ok(());
    }
    let way = if theirs == ours { "sideways" } else { "upward" };
    Err(format!("{way}: floor {}", FLOORS[theirs].name))
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.modules.contains(&module))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the rule says of one planted file.
    fn planted(path: &str, text: &str) -> String {
        violations(&[Source::new(path, text)]).join("\n")
    }

    #[test]
    fn lower_floors_and_the_own_subtree_may_be_used() {
        let text = "
            //! `crate::grpc` in prose is no use.
            /// Nor is [`crate::grpc`].
            use crate::ids::AccountId;
            use crate::tokens::slot;
            use super::refresh::{self, Refresh};
            pub(crate) fn f() { crate::store::Store::open(\"crate::grpc\") }
            pub(super) struct S;
            mod inner { use super::super::Refresh; }
            #[cfg(test)]
            mod tests { use super::*; use crate::testing::ManualClock; }
        ";
        assert_eq!(planted("src/tokens/slot.rs", text), "");
        assert_eq!(planted("src/event.rs", "use crate::ids::LinkId;"), "");
        assert_eq!(planted("src/app.rs", "use crate::config::Config;"), "");
        assert_eq!(planted("src/main.rs", "use azdo_broker::grpc;"), "");
    }

    #[test]
    fn a_use_upward_is_found_in_every_shape_it_can_take() {
        for text in [
            "use crate::grpc::Face;",
            "use crate::grpc;",
            "use crate::grpc as talk;",
            "use crate::{ids::AccountId, grpc::Face};",
            "use crate::{ids::{AccountId, LinkId}, grpc::{peer::{caller}, Face}};",
            "use {std::fmt, crate::grpc::Face};",
            "pub use crate::grpc::*;",
            "fn f() { let face = crate::grpc::Face::new(); }",
            "fn f(face: &dyn crate::grpc::Face) {}",
            "fn f() { g::<crate::grpc::Face>() }",
            "impl From<u8> for crate::grpc::Face {}",
            "fn f() { tracing::info!(who = %crate::grpc::peer::caller(&x), \"hm\"); }",
            "fn f() { matches!(x, crate::grpc::Face { .. }) }",
            "fn f() { tokio::select! { x = crate::grpc::serve() => (), } }",
            "macro_rules! m { () => { $crate::grpc::Face }; }",
            "#[derive(crate::grpc::Face)] struct S;",
            "#[serde(with = \"crate::grpc::face\")] struct S;",
            "pub(in crate::grpc) fn f() {}",
            "use crate :: r#grpc :: Face;",
            "use super::grpc::Face;",
            "mod inner { use super::super::grpc::Face; }",
            "mod inner { fn f() { self::super::super::grpc::f() } }",
            "use super::{ids::AccountId, grpc::Face};",
        ] {
            let said = planted("src/vault/mod.rs", text);
            assert!(said.contains("vault uses grpc, upward: floor 6, faces"), "{text}\n{said}");
        }
    }

    #[test]
    fn climbing_out_is_found_from_any_depth() {
        assert_eq!(planted("src/links/a.rs", "use super::super::ids::LinkId;"), "");
        let said = planted("src/links/a.rs", "use super::super::grpc::Face;");
        assert!(said.contains("src/links/a.rs:1: links uses grpc, upward"), "{said}");
        let said = planted("src/links/a/mod.rs", "mod m { use super::super::super::grpc::Face; }");
        assert!(said.contains("links uses grpc, upward"), "{said}");
    }

    #[test]
    fn neighbours_are_not_used() {
        for (path, text) in [
            ("src/seal/mod.rs", "use crate::store::Store;"),
            ("src/release/mod.rs", "fn f() { crate::links::below(1) }"),
            ("src/grpc/mod.rs", "use crate::{admin::Admin};"),
            ("src/outgoing.rs", "use crate::files;"),
        ] {
            assert!(planted(path, text).contains("sideways"), "{path}");
        }
    }

    #[test]
    fn tests_keep_to_the_floors_too() {
        let said = planted("src/vault/mod.rs", "#[cfg(test)] mod tests { use crate::tokens::Slot; }");
        assert!(said.contains("vault uses tokens, upward"), "{said}");
    }

    #[test]
    fn what_stands_on_no_floor_is_found() {
        let said = planted("src/helpers/mod.rs", "");
        assert!(said.contains("module helpers stands on no floor"), "{said}");
        for text in
            ["use crate::helpers::f;", "use crate::*;", "use crate as all;", "use crate::{self as all};"]
        {
            assert!(planted("src/vault/mod.rs", text).contains("stands on no floor"), "{text}");
        }
    }

    #[test]
    fn fakes_are_for_tests_and_imitate_only_what_is_low() {
        let product = "#[cfg(test)] use crate::ids; use crate::testing::ManualClock;";
        assert!(planted("src/vault/mod.rs", product).contains("for tests only"));
        let product = "#[cfg(not(test))] use crate::testing::ManualClock;";
        assert!(planted("src/vault/mod.rs", product).contains("for tests only"));
        let product = "#[cfg(test)] mod tests { } fn f() { crate::testing::f() }";
        assert!(planted("src/vault/mod.rs", product).contains("for tests only"));
        let test = "#[cfg(test)] use crate::testing::ManualClock;";
        assert_eq!(planted("src/vault/mod.rs", test), "");

        assert_eq!(planted("src/testing/mod.rs", "use crate::{vault::Vault, entra::Entra};"), "");
        let said = planted("src/testing/mod.rs", "use crate::tokens::Tokens;");
        assert!(said.contains("testing uses tokens"), "{said}");
    }

    #[test]
    fn a_file_that_only_tests_compile_may_use_fakes() {
        let declares = Source::new("src/vault/mod.rs", "#[cfg(test)]\nmod trials;\nmod record;");
        let trials = Source::new("src/vault/trials/more.rs", "use crate::testing::ManualClock;");
        assert_eq!(violations(&[declares, trials]), Vec::<String>::new());

        let declares = Source::new("src/vault/mod.rs", "#[cfg(test)]\nmod trials;\nmod record;");
        let record = Source::new("src/vault/record.rs", "use crate::testing::ManualClock;");
        assert_eq!(violations(&[declares, record]).len(), 1);
    }

    #[test]
    fn what_is_no_rust_is_not_passed_over() {
        assert!(planted("src/vault/mod.rs", "fn f() {").contains("is no Rust"));
    }
}
