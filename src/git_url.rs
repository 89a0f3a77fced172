//! Clone URLs of Azure Repos, in every form of azure.md 4.1.
//!
//! # Invariants
//!
//! 1. Only https and only Azure DevOps' own hosts parse; there is no knob for others (threat T27).
//! 2. Nothing is repaired: control bytes, backslashes, encoded separators and dot segments refuse.
//!
//! Git passes hosts and paths raw, so this does not lean on a URL library: those strip newlines and
//! collapse `..` before anybody can refuse them.

use std::fmt::Write as _;

use crate::ids::Organization;

/// Names one repository of one organization.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GitUrl {
    pub organization: Organization,
    pub project: String,
    pub repository: String,
}

/// Why a text is no clone URL of Azure Repos.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAGitUrl {
    #[error("only https is answered: use the repository's https clone URL")]
    NotHttps,
    #[error("the host is not one of Azure DevOps")]
    ForeignHost,
    #[error("the path is missing: git sends it only with credential.useHttpPath")]
    NoPath,
    #[error("the path does not name a repository: /organization/project/_git/repository")]
    Path,
    #[error("the text holds a character that no clone URL has")]
    Character,
    #[error("the text is too long")]
    TooLong,
}

impl GitUrl {
    /// Reads a whole URL.
    pub fn parse(text: &str) -> Result<Self, NotAGitUrl> {
        check_text(text)?;
        let (scheme, rest) = text.split_once("://").ok_or(NotAGitUrl::NotHttps)?;
        let (authority, path) = rest.split_once('/').ok_or(NotAGitUrl::NoPath)?;
        // For URL libraries these end the authority: theirs would go to `evil.test#@dev.azure.com`'s first half.
        if authority.contains(['?', '#']) {
            return Err(NotAGitUrl::ForeignHost);
        }
        let host = match authority.split_once('@') {
            Some((_user, host)) => host,
            None => authority,
        };
        Self::read(scheme, host, path, false)
    }

    /// Reads what git's credential protocol gives: the path without its leading slash. Git decodes it,
    /// so that a project's space arrives as a space; other programs hand it on as it stands in the URL.
    pub fn from_parts(scheme: &str, host: &str, path: &str) -> Result<Self, NotAGitUrl> {
        check_text(&path.replace(' ', "%20"))?;
        Self::read(scheme, host, path, true)
    }

    fn read(scheme: &str, host: &str, path: &str, is_decoded: bool) -> Result<Self, NotAGitUrl> {
        for text in [scheme, host] {
            check_text(text)?;
        }
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(NotAGitUrl::NotHttps);
        }
        let host = Host::parse(host)?;
        if path.is_empty() {
            return Err(NotAGitUrl::NoPath);
        }
        let segments = segments(path, is_decoded)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (organization, rest) = match (host, segments.as_slice()) {
            (Host::Dev, [organization, rest @ ..]) => {
                (organization.parse().map_err(|_| NotAGitUrl::Path)?, rest)
            }
            (Host::Legacy(organization), [first, rest @ ..])
                if first.eq_ignore_ascii_case("DefaultCollection") =>
            {
                (organization, rest)
            }
            (Host::Legacy(organization), rest) => (organization, rest),
            (Host::Dev, []) => return Err(NotAGitUrl::NoPath),
        };
        let (project, repository) = repository(rest)?;
        Ok(Self { organization, project, repository })
    }

    /// The canonical form, first of azure.md 4.1, without user information.
    pub fn to_url(&self) -> String {
        let (project, repository) = (encode(&self.project), encode(&self.repository));
        format!("https://dev.azure.com/{}/{project}/_git/{repository}", self.organization)
    }

    /// The same repository for ssh.
    pub fn to_ssh_url(&self) -> String {
        let (project, repository) = (encode(&self.project), encode(&self.repository));
        format!("git@ssh.dev.azure.com:v3/{}/{project}/{repository}", self.organization)
    }
}

enum Host {
    Dev,
    Legacy(Organization),
}

impl Host {
    fn parse(text: &str) -> Result<Self, NotAGitUrl> {
        let host = text.strip_suffix(":443").unwrap_or(text).to_ascii_lowercase();
        if host == "dev.azure.com" {
            return Ok(Self::Dev);
        }
        host.strip_suffix(".visualstudio.com")
            .filter(|organization| !RESERVED.contains(organization))
            .and_then(|organization| organization.parse().ok())
            .map(Self::Legacy)
            .ok_or(NotAGitUrl::ForeignHost)
    }
}

/// `{project}/_git/[_optimized/|_full/]{repository}`, or without project where both have one name.
fn repository(segments: &[&str]) -> Result<(String, String), NotAGitUrl> {
    let (project, rest) = match segments {
        ["_git", rest @ ..] => (None, rest),
        [project, "_git", rest @ ..] => (Some(*project), rest),
        _ => return Err(NotAGitUrl::Path),
    };
    // git-lfs asks for its own endpoint below the repository.
    let rest = match rest.iter().position(|segment| *segment == "info") {
        Some(at) if 0 < at && rest.get(at + 1) == Some(&"lfs") => &rest[..at],
        _ => rest,
    };
    let repository = match rest {
        [repository] | ["_optimized" | "_full", repository] => *repository,
        _ => return Err(NotAGitUrl::Path),
    };
    if repository.starts_with("_optimized") || repository == "_full" {
        return Err(NotAGitUrl::Path);
    }
    Ok((project.unwrap_or(repository).to_owned(), repository.to_owned()))
}

fn segments(path: &str, is_decoded: bool) -> Result<Vec<String>, NotAGitUrl> {
    if path.contains(['?', '#', ';']) {
        return Err(NotAGitUrl::Path);
    }
    path.strip_suffix('/')
        .unwrap_or(path)
        .split('/')
        .map(|segment| {
            // What git decoded may hold a `%` of the name itself; then nothing is to be decoded in it.
            let decoded =
                if is_decoded && !has_escape(segment) { segment.to_owned() } else { decode(segment)? };
            let hostile = decoded.is_empty()
                || matches!(decoded.as_str(), "." | "..")
                || decoded.contains(['/', '\\'])
                || has_escape(&decoded)
                || decoded.chars().any(char::is_control);
            if hostile { Err(NotAGitUrl::Path) } else { Ok(decoded) }
        })
        .collect()
}

/// Whether there is something to decode: in a name that was decoded, that would be a second reading.
fn has_escape(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes
        .windows(3)
        .any(|three| three[0] == b'%' && three[1].is_ascii_hexdigit() && three[2].is_ascii_hexdigit())
}

fn decode(segment: &str) -> Result<String, NotAGitUrl> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = if *first == b'%' {
            let [high, low, tail @ ..] = tail else {
                return Err(NotAGitUrl::Path);
            };
            let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or(NotAGitUrl::Path);
            let byte = digit(high)? * 16 + digit(low)?;
            bytes.push(u8::try_from(byte).expect("two hex digits fit a byte"));
            tail
        } else {
            bytes.push(*first);
            tail
        };
    }
    String::from_utf8(bytes).map_err(|_| NotAGitUrl::Path)
}

fn encode(segment: &str) -> String {
    segment.bytes().fold(String::with_capacity(segment.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a String does not fail");
        }
        text
    })
}

fn check_text(text: &str) -> Result<(), NotAGitUrl> {
    if URL_LEN_MAX < text.len() {
        return Err(NotAGitUrl::TooLong);
    }
    let foreign = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
    if text.chars().any(foreign) {
        return Err(NotAGitUrl::Character);
    }
    Ok(())
}

/// Azure's names are at most 64 (project) and 64 (repository) characters, percent-encoded UTF-8.
const URL_LEN_MAX: usize = 2048;
/// Hosts of Microsoft's own under `visualstudio.com` that are no organization.
const RESERVED: [&str; 5] = ["app", "vs-ssh", "www", "marketplace", "spsprodeus21"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_names_its_repository() {
        for (url, project, repository) in [
            ("https://dev.azure.com/contoso/Data%20Platform/_git/analytics", "Data Platform", "analytics"),
            (
                "https://contoso@dev.azure.com/contoso/Data%20Platform/_git/analytics",
                "Data Platform",
                "analytics",
            ),
            ("https://someone@DEV.azure.com:443/Contoso/p/_git/r/", "p", "r"),
            ("https://dev.azure.com/contoso/_git/web", "web", "web"),
            ("https://contoso.visualstudio.com/p/_git/r", "p", "r"),
            ("https://contoso.visualstudio.com/DefaultCollection/p/_git/r", "p", "r"),
            ("https://contoso.visualstudio.com/DefaultCollection/_git/r", "r", "r"),
            ("https://contoso.visualstudio.com/_git/web", "web", "web"),
            ("https://dev.azure.com/contoso/p/_git/_optimized/r", "p", "r"),
            ("https://dev.azure.com/contoso/p/_git/_full/r", "p", "r"),
            ("https://dev.azure.com/contoso/p/_git/r.git", "p", "r.git"),
        ] {
            let parsed = GitUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(parsed.organization.as_str(), "contoso", "{url}");
            assert_eq!((parsed.project.as_str(), parsed.repository.as_str()), (project, repository), "{url}");
        }
    }

    #[test]
    fn a_path_that_git_decoded_names_the_same_repository() {
        let encoded =
            GitUrl::parse("https://dev.azure.com/contoso/Data%20Platform/_git/r%C3%A9sum%C3%A9").unwrap();
        let decoded =
            GitUrl::from_parts("https", "dev.azure.com", "contoso/Data Platform/_git/r\u{e9}sum\u{e9}")
                .unwrap();
        assert_eq!(decoded, encoded);
        for path in
            ["contoso/a\tb/_git/r", "contoso/a\u{a0}b/_git/r", "contoso/a\nb/_git/r", "contoso/a\\b/_git/r"]
        {
            assert_eq!(
                GitUrl::from_parts("https", "dev.azure.com", path),
                Err(NotAGitUrl::Character),
                "{path:?}"
            );
        }
        assert!(GitUrl::parse("https://dev.azure.com/contoso/Data Platform/_git/r").is_err());
        assert!(GitUrl::from_parts("https", "dev.azure.com ", "contoso/p/_git/r").is_err());
    }

    #[test]
    fn a50_foreign_hosts_schemes_and_paths_do_not_parse() {
        for url in [
            "http://dev.azure.com/contoso/p/_git/r",
            "ssh://dev.azure.com/contoso/p/_git/r",
            "https://evil.com/contoso/p/_git/r",
            "https://dev.azure.com.evil.test/contoso/p/_git/r",
            "https://dev.azure.com:444/contoso/p/_git/r",
            "https://dev.azure.com%00evil.com/contoso/p/_git/r",
            "https://dev.azure.com./contoso/p/_git/r",
            "https://dev.azure.com@evil.test/contoso/p/_git/r",
            "https://a@dev.azure.com@evil.test/contoso/p/_git/r",
            "https://evil.test#@dev.azure.com/contoso/p/_git/r",
            "https://evil.test?@dev.azure.com/contoso/p/_git/r",
            "https://xn--dv-zma.azure.com/contoso/p/_git/r",
            "https:///contoso/p/_git/r",
            "https://visualstudio.com/p/_git/r",
            "https://app.visualstudio.com/p/_git/r",
            "https://a.b.visualstudio.com/p/_git/r",
            "https://dev.azure.com",
            "https://dev.azure.com/",
            "https://dev.azure.com/contoso",
            "https://dev.azure.com/contoso/p",
            "https://dev.azure.com/contoso/p/_git/",
            "https://dev.azure.com/contoso/../fabrikam/p/_git/r",
            "https://dev.azure.com/contoso/%2e%2e/p/_git/r",
            "https://dev.azure.com/contoso%2fp/x/_git/r",
            "https://dev.azure.com/contoso/p/_git/r?x=y",
            "https://dev.azure.com/contoso/p/_git/r#f",
            "https://dev.azure.com/contoso/p/_git/r;x",
            "https://dev.azure.com/contoso/p/_git/r\n",
            "https://dev.azure.com/contoso/p/_git/r\0",
            "https://dev.azure.com/contoso/p/_git/r%00",
            "https://dev.azure.com/contoso/p/_git/r%0a",
            "https://dev.azure.com/contoso/p/_git/%zz",
            "https://dev.azure.com\\contoso\\p\\_git\\r",
            "https://dev.azure.com//contoso/p/_git/r",
            "https://dev.azure.com/contoso/p/_git/%252e",
        ] {
            assert!(GitUrl::parse(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn every_form_has_one_canonical_url() {
        for (url, canonical) in [
            (
                "https://Contoso@dev.azure.com/Contoso/Data%20Platform/_git/r%C3%A9sum%C3%A9%2B1",
                "https://dev.azure.com/contoso/Data%20Platform/_git/r%C3%A9sum%C3%A9%2B1",
            ),
            (
                "https://contoso.visualstudio.com/DefaultCollection/_git/web",
                "https://dev.azure.com/contoso/web/_git/web",
            ),
        ] {
            let parsed = GitUrl::parse(url).unwrap();
            assert_eq!(parsed.to_url(), canonical);
            assert_eq!(GitUrl::parse(canonical).unwrap(), parsed);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_parsed_survives_its_canonical_url(project in "[^/]{1,20}", repository in "[^/]{1,20}") {
            let path = format!("contoso/{}/_git/{}", encode(&project), encode(&repository));
            if let Ok(parsed) = GitUrl::from_parts("https", "dev.azure.com", &path) {
                proptest::prop_assert_eq!(GitUrl::parse(&parsed.to_url()).unwrap(), parsed);
            }
        }

        #[test]
        fn no_text_panics_and_none_outside_our_hosts_parses(scheme in "https?", host in ".{0,40}", path in ".{0,60}") {
            if GitUrl::from_parts(&scheme, &host, &path).is_ok() {
                let host = host.to_ascii_lowercase();
                let host = host.strip_suffix(":443").unwrap_or(&host);
                proptest::prop_assert!(host == "dev.azure.com" || host.ends_with(".visualstudio.com"));
            }
        }
    }
}
