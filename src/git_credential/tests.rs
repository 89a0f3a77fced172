//! Checks A49, A50, A51 and A53 with a fake broker that counts.

use std::cell::RefCell;

use super::*;
use crate::testing::git_urls::{self, Expected};

/// What the broker was asked, in order.
#[derive(Default)]
struct Fake {
    asked: RefCell<Vec<String>>,
    down: bool,
}

impl Fake {
    fn ask<T>(&self, what: String, answer: T) -> Result<T, String> {
        self.asked.borrow_mut().push(what);
        if self.down { Err("no broker answers".to_owned()) } else { Ok(answer) }
    }
}

impl Broker for Fake {
    fn credential(&self, url: &GitUrl) -> Result<pb::GetGitCredentialResponse, String> {
        let answer = pb::GetGitCredentialResponse {
            username: "oauth2".into(),
            access_token: "abc".into(),
            expires_at: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 }),
            ..Default::default()
        };
        self.ask(url.to_url(), answer)
    }

    fn report(&self, token_fingerprint: &str) -> Result<(), String> {
        self.ask(token_fingerprint.to_owned(), ())
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_767_220_000).unwrap()
    }
}

fn run_with(fake: &Fake, operation: &str, input: &[u8]) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut input = input;
    run(operation, &mut input, &mut out, &mut err, fake).unwrap();
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn question(host: &str) -> Vec<u8> {
    format!("protocol=https\nhost={host}\npath=contoso/p/_git/r\n\n").into_bytes()
}

#[test]
fn a49_git_that_knows_authtype_gets_an_ephemeral_bearer() {
    let fake = Fake::default();
    let input = b"capability[]=authtype\ncapability[]=state\nprotocol=https\nhost=dev.azure.com\n\
        path=contoso/Data%20Platform/_git/analytics\nusername=contoso\nwwwauth[]=TFS-Federated\n\n";
    let (out, err) = run_with(&fake, "get", input);
    assert_eq!(
        out,
        "capability[]=authtype\nauthtype=Bearer\ncredential=abc\nephemeral=1\npassword_expiry_utc=1767225600\n"
    );
    assert_eq!(err, "");
    assert_eq!(*fake.asked.borrow(), ["https://dev.azure.com/contoso/Data%20Platform/_git/analytics"]);
}

#[test]
fn a49_older_git_gets_user_and_password_with_its_expiry() {
    for input in [question("dev.azure.com"), [b"username=me\n".to_vec(), question("dev.azure.com")].concat()]
    {
        let (out, _) = run_with(&Fake::default(), "get", &input);
        assert_eq!(out, "username=oauth2\npassword=abc\npassword_expiry_utc=1767225600\n");
    }
}

#[test]
fn a50_only_the_exact_hosts_are_answered() {
    for host in ["DEV.AZURE.COM:443", "dev.azure.com", "dev.azure.com:443"] {
        let fake = Fake::default();
        let (out, _) = run_with(&fake, "get", &question(host));
        assert!(out.contains("password=abc"), "{host}");
        assert_eq!(fake.asked.borrow().len(), 1, "{host}");
    }
    for host in [
        "evil.com",
        "dev.azure.com.evil.com",
        "dev.azure.com:444",
        "dev.azure.com%00evil.com",
        "",
        "xn--dv-zma.azure.com",
        "dev.azure.com.",
        "user@dev.azure.com",
        "dev.azure.com@evil.com",
        "a.b.visualstudio.com",
        "visualstudio.com",
    ] {
        for operation in ["get", "erase"] {
            let fake = Fake::default();
            let input = [b"password=abc\n".to_vec(), question(host)].concat();
            assert_eq!(run_with(&fake, operation, &input), (String::new(), String::new()), "{host}");
            assert!(fake.asked.borrow().is_empty(), "{host}");
        }
    }
    let missing = Fake::default();
    assert_eq!(run_with(&missing, "get", b"protocol=https\npath=o/p/_git/r\n\n").0, "");
    assert!(missing.asked.borrow().is_empty());
}

#[test]
fn a51_hostile_lines_get_nothing_and_the_broker_is_not_asked() {
    let base = "protocol=https\nhost=dev.azure.com\npath=contoso/p/_git/r\n";
    let long = format!("x={}\n{base}\n", "y".repeat(1 << 20));
    let many = format!("{}{base}\n", "wwwauth[]=Basic\n".repeat(1 << 17));
    for hostile in [
        "protocol=https\r\nhost=dev.azure.com\r\npath=contoso/p/_git/r\r\n\r\n",
        "protocol=https\nhost=dev.azure.com\rx\npath=contoso/p/_git/r\n\n",
        "protocol=https\nhost=dev.azure.com\0\npath=contoso/p/_git/r\n\n",
        "protocol=https\nhost=dev.azure.com\npath=contoso/p/_git/r\x1b\n\n",
        "protocol=https\nhost=dev.azure.com\nhost=dev.azure.com\npath=contoso/p/_git/r\n\n",
        "protocol=https\nhost=\nhost=dev.azure.com\npath=contoso/p/_git/r\n\n",
        "username=a\nusername=b\nprotocol=https\nhost=dev.azure.com\npath=contoso/p/_git/r\n\n",
        "protocol=https\npath=contoso/p/_git/r\n\nhost=dev.azure.com\n\n",
        "protocol=https\nhost=dev.azure.com\npath=contoso/p/_git/r",
        "protocol=http\nhost=dev.azure.com\npath=contoso/p/_git/r\n\n",
        "url=https://dev.azure.com/contoso/p/_git/r\n\n",
        "protocol=https\nhost=dev.azure.com\npath=contoso/p/_git/r\nurl=https://evil.com\n\n",
        "protocol=https\nhost=dev.azure.com\npath=contoso/p/_git/r\nnonsense\n\n",
        "protocol=https\nhost=dev.azure.com\npath=contoso/../evil/_git/r\n\n",
        "",
        "\n",
        long.as_str(),
        many.as_str(),
    ] {
        let shown = hostile.get(..80).unwrap_or(hostile);
        let fake = Fake::default();
        assert_eq!(run_with(&fake, "get", hostile.as_bytes()).0, "", "{shown:?}");
        assert!(fake.asked.borrow().is_empty(), "{shown:?}");
    }
    let not_text = [b"x=\xff\n".to_vec(), question("dev.azure.com")].concat();
    assert_eq!(run_with(&Fake::default(), "get", &not_text).0, "");
}

#[test]
fn a51_unknown_keys_and_arrays_change_nothing() {
    let fake = Fake::default();
    let input = [b"later=1\nstate[]=a\nstate[]=b\nlater=2\n".to_vec(), question("dev.azure.com")].concat();
    assert!(run_with(&fake, "get", &input).0.contains("password=abc"));
}

#[test]
fn a_capability_taken_back_is_none() {
    let input = [b"capability[]=authtype\ncapability[]=\n".to_vec(), question("dev.azure.com")].concat();
    assert!(run_with(&Fake::default(), "get", &input).0.starts_with("username="));
}

#[test]
fn without_a_path_git_is_told_what_to_configure() {
    let fake = Fake::default();
    let (out, err) = run_with(&fake, "get", b"protocol=https\nhost=dev.azure.com\n\n");
    assert_eq!(out, "");
    assert!(err.contains("credential.https://dev.azure.com.useHttpPath true"), "{err}");
    assert!(err.contains("azdo-broker git-setup"), "{err}");
    assert!(fake.asked.borrow().is_empty());
}

#[test]
fn a53_store_and_unknown_operations_do_nothing() {
    for operation in ["store", "later"] {
        let fake = Fake::default();
        assert_eq!(run_with(&fake, operation, &question("dev.azure.com")), (String::new(), String::new()));
        assert!(fake.asked.borrow().is_empty());
    }
    assert_eq!(run_with(&Fake::default(), "capability", b"").0, "version 0\ncapability authtype\n");
}

#[test]
fn a53_erase_reports_the_fingerprint_and_never_the_token() {
    for key in ["credential", "password"] {
        let fake = Fake::default();
        let input = [format!("{key}=abc\n").into_bytes(), question("dev.azure.com")].concat();
        assert_eq!(run_with(&fake, "erase", &input), (String::new(), String::new()));
        assert_eq!(*fake.asked.borrow(), ["ba7816bf8f01cfea414140de5dae2223"]);
    }
    let fake = Fake::default();
    run_with(&fake, "erase", &question("dev.azure.com"));
    assert!(fake.asked.borrow().is_empty());
}

#[test]
fn a53_a_broker_in_trouble_is_told_on_stderr_and_ends_gits_search() {
    let fake = Fake { down: true, ..Fake::default() };
    let (out, err) = run_with(&fake, "get", &question("dev.azure.com"));
    assert_eq!((out.as_str(), err.as_str()), ("quit=1\n", "azdo-broker: no broker answers\n"));
    let input = [b"password=canary\n".to_vec(), question("dev.azure.com")].concat();
    let (out, err) = run_with(&fake, "erase", &input);
    assert!(out.is_empty() && err.contains("no broker answers") && !err.contains("canary"));
}

#[test]
fn an_answer_that_would_break_the_protocol_is_not_passed_on() {
    let now = Timestamp::from_second(0).unwrap();
    for token in ["", "a\nhost=evil.com", "a b", "a\r"] {
        let answer = pb::GetGitCredentialResponse { access_token: token.into(), ..Default::default() };
        assert_eq!(compose(&answer, true, now), None, "{token:?}");
    }
    let answer = pb::GetGitCredentialResponse {
        access_token: "abc".into(),
        username: "a\nb".into(),
        ..Default::default()
    };
    assert_eq!(compose(&answer, false, now).unwrap(), "username=oauth2\npassword=abc\n");
}

/// A50, with the table of all forms: what is no clone URL is asked of nobody, whatever git makes of it.
#[test]
fn a50_every_url_of_the_table_is_asked_of_the_broker_or_of_nobody() {
    let mut asked = 0;
    for (expected, url) in git_urls::rows() {
        // What git itself refuses before it asks anybody (git-credential.adoc, CVE-2020-5260).
        let Some((scheme, host, path)) = as_git_reads_it(&url) else { continue };
        let fake = Fake::default();
        let input = format!("protocol={scheme}\nhost={host}\npath={path}\n\n");
        let (out, _) = run_with(&fake, "get", input.as_bytes());
        let is_asked = !fake.asked.borrow().is_empty();
        assert_eq!(is_asked, expected != Expected::None, "{url:?}");
        assert_eq!(out.is_empty(), expected == Expected::None, "{url:?}");
        asked += 1;
    }
    assert!(60 <= asked, "only {asked} rows");
}

/// As `credential_from_url` of git does it: user information off, the path decoded.
fn as_git_reads_it(url: &str) -> Option<(&str, &str, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    // Git connects to the host that it tells; the helper never hears of what stands before it.
    if user.contains('\\') {
        return None;
    }
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut bytes = Vec::new();
    let mut left = path.as_bytes();
    while let [first, tail @ ..] = left {
        let digit = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (*first, digit(0), digit(1)) {
            bytes.push(u8::try_from(high * 16 + low).unwrap());
            left = &tail[2..];
        } else {
            bytes.push(*first);
            left = tail;
        }
    }
    let path = String::from_utf8(bytes).ok()?;
    let breaks = [scheme, host, &path].iter().any(|text| text.contains(['\n', '\r', '\0']));
    (!breaks).then_some((scheme, host, path))
}
