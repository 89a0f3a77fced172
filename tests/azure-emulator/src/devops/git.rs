//! Git over HTTP: finds the repository, checks the caller, hands over to `git http-backend`.
//!
//! Uploads are read before git starts; what git answers is streamed.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use flate2::read::GzDecoder;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader, ReadBuf};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::io::ReaderStream;

use super::access::{self, Caller, Refused};
use super::errors;
use super::repositories::find_open;
use super::usage;
use crate::call::{Answer, Call, json, text};
use crate::fault::Fault;
use crate::seeding::make_repository;
use crate::state::Shared;
use crate::world::{Organization, Project, Repository};

/// What follows the repository in the path.
struct Place<'a> {
    project: &'a str,
    repository: &'a str,
    rest: String,
}

pub(super) async fn answer(shared: &Shared, call: &Call, organization: &Organization) -> Answer {
    let caller = match access::admit(shared, call, organization) {
        Ok(caller) => caller,
        Err(refused) => return refused.into_answer(shared, call, organization),
    };
    if let Err(refused) = usage::count(shared, &caller.subject.oid) {
        return *refused;
    }
    let segments = call.segments();
    let Some(place) = parse(&segments[1..]) else {
        return text(404, "");
    };
    let Some((project, repository)) = find_open(&caller, Some(place.project), place.repository) else {
        return not_found(call, &place);
    };
    if place.rest == "vsts/info" {
        return info(organization, project, &repository);
    }
    let is_push = place.rest == "git-receive-pack" || call.query("service") == Some("git-receive-pack");
    if !caller.has_scope_of_code(is_push) {
        let refused = Refused::NotAuthorized(caller.subject.name.clone());
        return refused.into_answer(shared, call, organization);
    }
    if is_push && !repository.is_writable_by(&caller.subject.name) {
        return errors::no_push();
    }
    let ignores_multi_ack = shared.find_fault(|fault| matches!(fault, Fault::RequireMultiAck { .. }))
        == Some(Fault::RequireMultiAck { on: false });
    if place.rest == "git-upload-pack" && !ignores_multi_ack && lacks_multi_ack(call) {
        return text(
            400,
            "TF401041: The Git protocol sent is not as expected (Clients must support multi-ack).",
        );
    }
    let made = {
        let _one_at_a_time = shared.seeding.lock().await;
        make_repository(&repository, &shared.data_dir)
    };
    if made.is_err() {
        return text(500, "the repository cannot be made");
    }
    match backend(shared, call, &caller, &repository.id, &place.rest).await {
        Ok(answer) => answer,
        Err(_) => text(500, "git http-backend cannot be run"),
    }
}

/// `{project}/_git/{repo}/…` or `_git/{repo}/…`, with or without a variant.
fn parse<'a>(segments: &[&'a str]) -> Option<Place<'a>> {
    let (project, after) = match segments {
        ["_git", after @ ..] => (None, after),
        [project, "_git", after @ ..] => (Some(*project), after),
        _ => return None,
    };
    let variant = matches!(after.first(), Some(&("_optimized" | "_full")));
    let after = &after[usize::from(variant)..];
    let (repository, rest) = after.split_first()?;
    Some(Place { project: project.unwrap_or(repository), repository, rest: rest.join("/") })
}

fn not_found(call: &Call, place: &Place<'_>) -> Answer {
    let is_git = call.header("user-agent").is_some_and(|agent| agent.starts_with("git/"));
    if is_git {
        text(404, errors::no_repository_text(place.repository))
    } else {
        errors::no_repository(place.repository)
    }
}

fn info(organization: &Organization, project: &Project, repository: &Repository) -> Answer {
    let server = format!("https://dev.azure.com/{}", organization.name);
    json(
        200,
        &serde_json::json!({
            "serverUrl": server,
            "collection": { "id": crate::random::derive_guid(&organization.name), "name": organization.name, "url": server },
            "repository": super::repositories::repository_json(organization, project, repository),
        }),
    )
}

/// The first `want` has capabilities, and `multi_ack` is not among them.
fn lacks_multi_ack(call: &Call) -> bool {
    let mut start = Vec::new();
    let is_gzip = call.header("content-encoding").is_some_and(|it| it.eq_ignore_ascii_case("gzip"));
    // What cannot be unpacked is git's to refuse.
    let _ = if is_gzip {
        GzDecoder::new(call.body.as_ref()).take(LONGEST_LINE).read_to_end(&mut start)
    } else {
        call.body.as_ref().take(LONGEST_LINE).read_to_end(&mut start)
    };
    let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(first);
    let Some((_, wanted)) = line.split_once("want ") else {
        return false;
    };
    let mut words = wanted.split(' ').skip(1).peekable();
    words.peek().is_some() && !words.any(|word| word.starts_with("multi_ack"))
}

async fn backend(shared: &Shared, call: &Call, caller: &Caller, id: &str, rest: &str) -> io::Result<Answer> {
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &shared.data_dir)
        .env("PATH_INFO", format!("/{id}.git/{rest}"))
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", call.method.as_str())
        .env("QUERY_STRING", &call.raw_query)
        .env("CONTENT_TYPE", call.header("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", call.body.len().to_string())
        .env("REMOTE_USER", &caller.subject.name)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_COUNT", SETTINGS.len().to_string())
        .env_remove("GIT_PROTOCOL")
        .env_remove("GIT_DIR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    for (n, (key, value)) in SETTINGS.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{n}"), key).env(format!("GIT_CONFIG_VALUE_{n}"), value);
    }
    if let Some(encoding) = call.header("content-encoding") {
        command.env("HTTP_CONTENT_ENCODING", encoding);
    }
    let speaks_v2 = shared.find_fault(|fault| matches!(fault, Fault::GitV2 {})).is_some();
    if let Some(protocol) = call.header("git-protocol").filter(|_| speaks_v2) {
        command.env("GIT_PROTOCOL", protocol);
    }
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let body = call.body.clone();
    // On its own, because git may answer before it has read everything. It ends with git.
    tokio::spawn(async move { stdin.write_all(&body).await });
    let stdout = child.stdout.take().expect("stdout is piped");
    read_answer(child, BufReader::new(stdout)).await
}

/// The headers of the CGI answer, then a stream of the rest.
async fn read_answer(child: Child, mut stdout: BufReader<ChildStdout>) -> io::Result<Answer> {
    let mut answer = Answer::new(Body::empty());
    loop {
        let mut line = String::new();
        if stdout.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse::<StatusCode>().ok());
            *answer.status_mut() = code.unwrap_or(StatusCode::BAD_GATEWAY);
        } else if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            answer.headers_mut().append(name, value);
        }
    }
    *answer.body_mut() = Body::from_stream(ReaderStream::new(Output { _child: child, stdout }));
    Ok(answer)
}

/// What git writes. The process lives as long as somebody may read it.
struct Output {
    _child: Child,
    stdout: BufReader<ChildStdout>,
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(context, buffer)
    }
}

/// Partial clones fetch by filter first and by id later.
const SETTINGS: &[(&str, &str)] =
    &[("safe.directory", "*"), ("uploadpack.allowFilter", "true"), ("uploadpack.allowAnySHA1InWant", "true")];

/// A line of the protocol is no longer.
const LONGEST_LINE: u64 = 65_520;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_an_address_lead_to_the_repository() {
        let place = |segments: &[&'static str]| {
            parse(segments).map(|place| (place.project, place.repository, place.rest))
        };

        assert_eq!(place(&["p", "_git", "r", "info", "refs"]), Some(("p", "r", "info/refs".to_owned())));
        assert_eq!(place(&["_git", "r"]), Some(("r", "r", String::new())));
        assert_eq!(place(&["p", "_git", "_optimized", "r", "x"]), Some(("p", "r", "x".to_owned())));
        assert_eq!(place(&["p", "r"]), None);
    }
}
