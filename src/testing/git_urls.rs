//! The table `tests/git_urls.txt`: clone URLs and what they are, one truth for helper and broker.

/// What must come of a URL for an account whose organization is `contoso`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// A credential.
    Own,
    /// Parsed, and refused by the broker.
    Foreign,
    /// No clone URL of Azure Repos.
    None,
}

/// All rows, in order.
pub fn rows() -> Vec<(Expected, String)> {
    let lines = include_str!("../../tests/git_urls.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(row).collect()
}

fn row(line: &str) -> (Expected, String) {
    let (expected, url) = line.split_once(' ').unwrap_or((line, ""));
    let expected = match expected {
        "own" => Expected::Own,
        "foreign" => Expected::Foreign,
        "none" => Expected::None,
        other => panic!("{other:?} is no expectation"),
    };
    (expected, unescape(url))
}

fn unescape(text: &str) -> String {
    text.replace("\\\\", "\u{1}")
        .replace("\\n", "\n")
        .replace("\\r", "\r")
        .replace("\\t", "\t")
        .replace("\\0", "\0")
        .replace("\\u0435", "\u{435}")
        .replace('\u{1}', "\\")
}
