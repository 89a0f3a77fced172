//! Files that fit in a reader's head and say first what they are.

use crate::source::Source;

/// A file's code, its trailing tests left out (S1).
const CODE_LINES_MAX: usize = 400;
/// The same with the tests that stand at its end.
const LINES_MAX: usize = 520;

/// Files that are too long, and files that do not begin with what they are.
pub(crate) fn violations(files: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for Source { path, text } in files {
        let (code, all) = lines(text);
        if code > CODE_LINES_MAX {
            found.push(format!("{path}: {code} lines of code, more than {CODE_LINES_MAX}"));
        }
        if all > LINES_MAX {
            found.push(format!("{path}: {all} lines, more than {LINES_MAX}"));
        }
        let first = text.lines().next().unwrap_or_default();
        if first.strip_prefix("//!").is_none_or(|doc| doc.trim().is_empty()) {
            found.push(format!("{path}: its first line does not say what it is (`//! …`)"));
        }
    }
    found
}

/// Lines of code, and all lines. Only tests at the very end are no code: what is followed by code is in
/// the reader's way like everything else.
fn lines(text: &str) -> (usize, usize) {
    let lines: Vec<&str> = text.lines().collect();
    let begin = lines
        .windows(2)
        .rposition(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
    let code = match begin {
        Some(begin)
            if lines[begin..].iter().position(|line| *line == "}") == Some(lines.len() - begin - 1) =>
        {
            begin
        }
        _ => lines.len(),
    };
    (code, lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(text: &str) -> Vec<String> {
        violations(&[Source::new("src/x.rs", text)])
    }

    fn file(code: usize, tests: usize, after: &str) -> String {
        let code = "//! What it is.\n".to_owned() + &"f();\n".repeat(code - 1);
        let tests = match tests {
            0 => String::new(),
            tests => format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    f();\n".repeat(tests - 3)),
        };
        code + &tests + after
    }

    #[test]
    fn a_file_may_be_as_long_as_it_may_be() {
        assert!(planted(&file(400, 0, "")).is_empty());
        assert!(planted(&file(400, 120, "")).is_empty());
    }

    #[test]
    fn a_longer_file_is_found() {
        assert!(planted(&file(401, 0, ""))[0].contains("401 lines of code"));
        assert!(planted(&file(401, 10, ""))[0].contains("401 lines of code"));
        assert!(planted(&file(400, 121, ""))[0].contains("521 lines"));
    }

    #[test]
    fn tests_in_the_middle_are_no_way_around() {
        assert!(planted(&file(399, 10, "fn f() {}\n"))[0].contains("410 lines of code"));
    }

    #[test]
    fn a_file_without_its_first_line_is_found() {
        for text in
            ["", "use std::fmt;\n", "\n//! Late.\n", "//!\n", "// No doc.\n", "/// Of an item.\nfn f() {}"]
        {
            assert_eq!(planted(text).len(), 1, "{text:?}");
        }
    }
}
