//! Reads git's credential protocol, strictly: lines of `key=value`, ended by LF and nothing else.
//!
//! Newer gits stop hostile lines themselves, older ones and other programs do not (CVE-2020-5260,
//! CVE-2024-52006, CVE-2026-82249). One hostile byte spoils the whole question: nothing is repaired.

use std::io::{self, BufRead, Read as _};

/// What git asks about. The token of an `erase` is in it, so it has no `Debug`.
#[derive(Default)]
pub(super) struct Question {
    pub(super) protocol: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) password: Option<String>,
    pub(super) credential: Option<String>,
    /// git understands `authtype`, `credential` and `ephemeral`.
    pub(super) authtype: bool,
}

/// Why a question is not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("a line holds a control character or is not UTF-8")]
    Character,
    #[error("a line is no key=value")]
    Line,
    #[error("a line is too long")]
    TooLong,
    #[error("a key stands there twice")]
    Twice,
    #[error("the last line is not ended")]
    CutOff,
    /// A `url` key would name the host a second time: not ours to weigh.
    #[error("it names a whole URL")]
    Elsewhere,
}

impl Question {
    /// Reads up to the blank line that ends the question, or the end of the input.
    pub(super) fn read(input: &mut dyn BufRead) -> io::Result<Result<Self, Unreadable>> {
        let mut input = input.take(INPUT_LEN_MAX);
        let mut question = Self::default();
        let mut seen = Vec::new();
        loop {
            let mut line = Vec::new();
            let len = input.read_until(b'\n', &mut line)?;
            if len == 0 && 0 < input.limit() {
                return Ok(Ok(question));
            }
            match question.take_line(&line, &mut seen) {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(question)),
                Err(unreadable) => return Ok(Err(unreadable)),
            }
        }
    }

    /// Whether more lines may follow.
    fn take_line(&mut self, line: &[u8], seen: &mut Vec<String>) -> Result<bool, Unreadable> {
        if LINE_LEN_MAX < line.len() {
            return Err(Unreadable::TooLong);
        }
        let line = line.strip_suffix(b"\n").ok_or(Unreadable::CutOff)?;
        if line.is_empty() {
            return Ok(false);
        }
        let line = str::from_utf8(line).map_err(|_| Unreadable::Character)?;
        if line.chars().any(char::is_control) {
            return Err(Unreadable::Character);
        }
        let (key, value) = line.split_once('=').ok_or(Unreadable::Line)?;
        let slot = match key {
            "url" => return Err(Unreadable::Elsewhere),
            "" => return Err(Unreadable::Line),
            "capability[]" => {
                // An empty value takes back what came before, as for every array of git's.
                self.authtype = value == "authtype" || (self.authtype && !value.is_empty());
                return Ok(true);
            }
            "protocol" => &mut self.protocol,
            "host" => &mut self.host,
            "path" => &mut self.path,
            "password" => self.password.get_or_insert_default(),
            "credential" => self.credential.get_or_insert_default(),
            // Never used, but two of them are two readings of one question.
            "username" => &mut String::new(),
            _ => return Ok(true),
        };
        if seen.iter().any(|seen| seen == key) {
            return Err(Unreadable::Twice);
        }
        seen.push(key.to_owned());
        value.clone_into(slot);
        Ok(true)
    }
}

/// git's own limit is 65535 bytes a value.
const LINE_LEN_MAX: usize = 64 << 10;
/// Far above any question of git's; `wwwauth[]` repeats a server's headers.
const INPUT_LEN_MAX: u64 = 1 << 20;
