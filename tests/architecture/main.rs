//! The rules of the house that a machine can hold us to: floors, few places, files of a readable size.
//!
//! Each rule is a function over a list of files, and each is proven by violations planted as strings in
//! its own tests: a rule that finds nothing proves nothing. What is held here is written in `src/lib.rs`.

mod floors;
mod paths;
mod places;
mod shape;
mod source;

use source::read;

#[test]
fn modules_use_only_lower_floors() {
    none(&floors::violations(&read(&["src"])));
}

#[test]
fn secrets_are_opened_in_the_listed_files_only() {
    none(&places::exposures(&read(&["src"])));
}

#[test]
fn tasks_statuses_and_the_environment_have_their_places() {
    none(&places::violations(&read(&["src"])));
}

#[test]
fn files_fit_in_a_reader_s_head_and_say_what_they_are() {
    none(&shape::violations(&read(&["src", "tests", "examples", "benches"])));
}

#[test]
fn the_rules_saw_the_whole_house() {
    let files = read(&["src", "tests"]);
    for path in ["src/lib.rs", "src/main.rs", "src/store/sqlite/mod.rs", "tests/azure-emulator/src/lib.rs"] {
        assert!(files.iter().any(|file| file.path == path), "{path} was not read");
    }
}

fn none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}
