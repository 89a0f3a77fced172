//! The README names every switch and change there is.

const README: &str = include_str!("../../README.md");

/// What follows `#[serde(rename = "` and has a dot, as switches and changes do.
fn names(source: &str) -> Vec<&str> {
    let parts = source.split("#[serde(rename = \"").skip(1);
    parts.filter_map(|part| part.split('"').next()).filter(|name| name.contains('.')).collect()
}

#[test]
fn every_switch_and_change_is_in_the_readme() {
    let switches = names(include_str!("../../src/fault.rs"));
    let changes = names(include_str!("../../src/control/change.rs"));

    assert!(switches.len() > 30 && changes.len() > 15, "{} {}", switches.len(), changes.len());
    for name in switches.iter().chain(&changes) {
        assert!(README.contains(&format!("`{name}`")), "{name}");
    }
}
