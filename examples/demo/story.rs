//! The story: an account is registered and linked, a job clones, a service calls, others are refused.

use std::fs;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::time::timeout;

use crate::browser::Browser;
use crate::calls::Service;
use crate::certificates::{IDE_BACKEND, STRANGER};
use crate::job::{self, Job, REPOSITORY};
use crate::narrator::{Narrator, more};
use crate::outcome::{Context as _, Outcome, ensure};
use crate::processes::{self, Running};
use crate::rotation::NEW_SECRET;
use crate::world::{ACCOUNT, World};

/// The person whom the account's work runs as, in the emulator's world.
pub(crate) const SERVICE_USER: &str = "svc@contoso.com";
pub(crate) const TENANT: &str = "10000000-0000-4000-a000-000000000001";
pub(crate) const CLIENT: &str = "ac3e0000-0000-4000-a000-000000000001";
/// Opens nothing but the emulator.
pub(crate) const CLIENT_SECRET: &str = "emu8Q~acme-secret.value+one/x=";
/// An account that no rule names.
const FOREIGN: &str = "globex";

/// The platform's operator registers the account's Entra app. The secret goes through a pipe, never
/// through a command line or a file.
pub(crate) async fn register(world: &World, narrator: &Narrator) -> Outcome<()> {
    narrator.begin("register");
    put(world, &["--secret-file", "-"]).await?;
    narrator
        .show("azdo-broker integration put: account acme, organization contoso, one client secret (sealed)");
    Ok(())
}

/// Registers the account, with more arguments.
pub(crate) async fn put(world: &World, more: &[&str]) -> Outcome<()> {
    let public_url = format!("http://localhost:{}", world.ports.links);
    let arguments = [
        "integration",
        "put",
        "--organization",
        "contoso",
        "--tenant-id",
        TENANT,
        "--client-id",
        CLIENT,
        "--public-url",
        &public_url,
    ];
    let command = world.command_line("operator", &[arguments.as_slice(), more].concat());
    processes::run("azdo-broker integration put", command, Some(CLIENT_SECRET), &world.log()).await?;
    Ok(())
}

/// A person links the service user: the command line prints a URL, a browser signs in, and the command
/// line confirms, because whoever signed in is whom it expected.
pub(crate) async fn link(world: &World, narrator: &Narrator) -> Outcome<()> {
    narrator.begin("link");
    let mut linking = begin_link(world)?;
    let mut err = BufReader::new(linking.child().stderr.take().ok_or("no standard error")?);
    let url = timeout(LINK_LIMIT, find_url(&mut err)).await.map_err(|_| "no URL was printed")??;
    narrator.show(&format!("azdo-broker link service-user --expect {SERVICE_USER}: prints a URL, and waits"));

    let mut browser = Browser::new()?;
    let page = browser.open(&url).await?;
    page.expect("You are about to connect Azure DevOps")?;
    let sign_in = browser.submit(&page, &[]).await?;
    sign_in.expect("Who are you?")?;
    let done = browser.submit(&sign_in, &[("user", SERVICE_USER), ("action", "accept")]).await?;
    done.expect("Nothing is connected yet")?;
    narrator.show(&format!("the browser went link page, sign-in, callback: {SERVICE_USER} signed in"));

    let mut out = linking.child().stdout.take().ok_or("no standard output")?;
    let (mut said, mut troubles) = (String::new(), String::new());
    let ended = async {
        tokio::try_join!(out.read_to_string(&mut said), err.read_to_string(&mut troubles))?;
        linking.child().wait().await
    };
    let status = timeout(LINK_LIMIT, ended).await.map_err(|_| "the command line does not end")??;
    ensure(status.success() && said.contains(SERVICE_USER), || {
        format!("azdo-broker link ended with {status}: {}", troubles.trim())
    })?;
    narrator.show(&format!("the command line confirmed it: {}", said.trim()));
    Ok(())
}

/// What the link was made for.
pub(crate) async fn work(world: &World, narrator: &Narrator) -> Outcome<()> {
    let fingerprint = release(world, narrator).await?;
    list(world, narrator).await?;
    clone(world, narrator).await?;
    call(world, narrator, &fingerprint).await?;
    refuse(world, narrator).await
}

/// Begins a link as a process of its own, with both outputs piped.
pub(crate) fn begin_link(world: &World) -> Outcome<Running> {
    let arguments = ["link", "service-user", "--account", ACCOUNT, "--expect", SERVICE_USER, "--no-browser"];
    let mut command = world.command_line("operator", &arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::spawn("azdo-broker link", command)
}

/// The first URL in what is said.
pub(crate) async fn find_url(said: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Outcome<String> {
    let (mut lines, mut seen) = (said.lines(), String::new());
    while let Some(line) = lines.next_line().await? {
        if line.trim().starts_with("http") {
            return Ok(line.trim().to_owned());
        }
        seen.push_str(&line);
    }
    Err(format!("azdo-broker link printed no URL: {seen}").into())
}

async fn release(world: &World, narrator: &Narrator) -> Outcome<String> {
    narrator.begin("release");
    let said = world.run("azdo-broker token", world.command_line("job-runner", &["token", "--json"])).await?;
    let answer: serde_json::Value = serde_json::from_str(&said.out).context("azdo-broker token")?;
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    let fingerprint = text("token_fingerprint").ok_or("the answer has no fingerprint")?;
    let expires = text("expires_at").unwrap_or_default();
    narrator.show(&format!("a token over job-runner.sock: fingerprint {fingerprint}, expires {expires}"));
    Ok(fingerprint)
}

async fn list(world: &World, narrator: &Narrator) -> Outcome<()> {
    narrator.begin("repositories");
    let said = world.run("azdo-broker repos", world.command_line("job-runner", &["repos"])).await?;
    ensure(said.out.contains("analytics") && !said.out.contains("secret"), || {
        format!("not what {SERVICE_USER} may read: {}", said.out)
    })?;
    narrator.show(said.err.trim());
    more(&said.out);
    Ok(())
}

async fn clone(world: &World, narrator: &Narrator) -> Outcome<()> {
    narrator.begin("clone");
    let job = Job::new(world)?;
    job.set_up_git().await?;
    job.clone_repository().await?;
    narrator.show(&format!("git clone {REPOSITORY}"));
    more(&format!("in the job: {}", job.files()?.join(", ")));

    let (secrets, _) = job::secrets(world, &[CLIENT_SECRET]).await?;
    let (found, read) = job::scan(&job.home, &secrets)?;
    ensure(found.is_empty(), || format!("a secret lies in the job's folder: {found:?}"))?;
    more(&format!("none of the {} secrets there are is in the {read} files of the job", secrets.len()));
    Ok(())
}

async fn call(world: &World, narrator: &Narrator, fingerprint: &str) -> Outcome<()> {
    narrator.begin("mutual TLS");
    let service = Service::connect(world, "ide-backend").await?;
    let token = service.token(ACCOUNT).await?;
    ensure(token.token_fingerprint == fingerprint && !token.access_token.is_empty(), || {
        format!("another token than the job's was released: {}", token.token_fingerprint)
    })?;
    let listed = service.repositories(ACCOUNT).await?;
    let names: Vec<_> = listed.repos.iter().map(|repo| repo.name.as_str()).collect();
    ensure(names.contains(&"analytics"), || format!("the list is {names:?}"))?;
    narrator.show(&format!("{IDE_BACKEND}: the same token, and {}", names.join(", ")));
    Ok(())
}

async fn refuse(world: &World, narrator: &Narrator) -> Outcome<()> {
    narrator.begin("refusals");
    let stranger = Service::connect(world, "stranger").await?;
    let words = stranger.refusal(ACCOUNT).await.context(STRANGER)?;
    narrator.show(&format!("{STRANGER} asks for {ACCOUNT}: PERMISSION_DENIED, {words}"));
    let service = Service::connect(world, "ide-backend").await?;
    let words = service.refusal(FOREIGN).await.context(FOREIGN)?;
    narrator.show(&format!("{IDE_BACKEND} asks for {FOREIGN}: PERMISSION_DENIED, {words}"));
    Ok(())
}

/// Looks for every secret in everything the broker wrote, after showing that the look finds one.
pub(crate) async fn prove(world: &World, narrator: &Narrator) -> Outcome<()> {
    narrator.begin("at rest");
    let (secrets, access) = job::secrets(world, &[CLIENT_SECRET, NEW_SECRET]).await?;
    let control = world.dir.join("control");
    fs::write(&control, secrets.concat())?;
    let (found, _) = job::scan(&world.dir, &secrets)?;
    fs::remove_file(&control)?;
    ensure(found.contains(&control), || "the scan finds nothing at all".to_owned())?;
    let (found, read) = job::scan(&world.dir, &secrets)?;
    ensure(found.is_empty(), || format!("a secret lies in clear in {found:?}"))?;
    let acts = fs::read_to_string(world.dir.join("audit.jsonl"))?.lines().count();
    narrator.show(&format!(
        "no secret in clear in {read} files: store, logs, audit ({acts} acts) and all else; Entra issued {access} tokens"
    ));
    Ok(())
}

/// More than a link takes here, less than a person would watch.
const LINK_LIMIT: std::time::Duration = std::time::Duration::from_secs(20);
