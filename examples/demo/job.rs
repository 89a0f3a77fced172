//! A job that clones: a folder, git, our helper, and no secret.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::process::Command;

use crate::browser::plain_http;
use crate::outcome::{Context as _, Outcome, ensure};
use crate::world::{ACCOUNT, World};

pub(crate) const REPOSITORY: &str = "https://dev.azure.com/contoso/Data%20Platform/_git/analytics";

pub(crate) struct Job<'a> {
    world: &'a World,
    pub(crate) home: PathBuf,
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<Token>,
}

#[derive(Deserialize)]
struct Token {
    kind: String,
    token: String,
}

impl<'a> Job<'a> {
    pub(crate) fn new(world: &'a World) -> Outcome<Self> {
        let home = world.dir.join("job");
        fs::create_dir(&home)?;
        Ok(Self { world, home })
    }

    /// What an image of the platform has done once: git asks our helper for Azure Repos, and nobody else.
    pub(crate) async fn set_up_git(&self) -> Outcome<()> {
        let address = format!("unix:{}", self.world.socket("job-runner").display());
        let mut command = self.world.program("azdo-broker");
        command.args(["git-setup", "--global", "--address", &address, "--account", ACCOUNT]);
        self.enter(&mut command);
        self.world.run("azdo-broker git-setup", command).await.map(drop)
    }

    pub(crate) async fn clone_repository(&self) -> Outcome<()> {
        let mut command = Command::new("git");
        self.world.clean(&mut command);
        command.args(["clone", REPOSITORY, "analytics"]);
        self.enter(&mut command);
        self.world.run("git clone", command).await.map(drop)
    }

    pub(crate) fn files(&self) -> Outcome<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.home.join("analytics"))? {
            found.push(entry?.file_name().to_string_lossy().into_owned());
        }
        found.retain(|name| name != ".git");
        found.sort();
        Ok(found)
    }

    fn enter(&self, command: &mut Command) {
        command.env("HOME", &self.home).current_dir(&self.home);
        // The emulator's proxy and authority; with the real Azure none of this is needed.
        let ca = self.world.emulator.ca.display().to_string();
        let settings = [("http.proxy", &self.world.emulator.proxy), ("http.sslCAInfo", &ca)];
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (at, (key, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
    }
}

/// Every secret there is in this world, and how many of each kind: the emulator knows its tokens.
pub(crate) async fn secrets(world: &World, client_secrets: &[&str]) -> Outcome<(Vec<String>, usize)> {
    let url = format!("{}/_emu/tokens?reveal=1", world.emulator.control);
    let answer = plain_http()?.get(url).send().await?.error_for_status()?;
    let Tokens { tokens } = answer.json().await.context("the emulator's tokens")?;
    let access = tokens.iter().filter(|token| token.kind == "access").count();
    ensure(0 < access, || "the emulator knows of no access token".to_owned())?;
    let mut secrets: Vec<_> = tokens.into_iter().map(|token| token.token).collect();
    secrets.extend(client_secrets.iter().map(ToString::to_string));
    Ok((secrets, access))
}

/// The files under `dir` that hold one of the secrets, and how many files were read.
pub(crate) fn scan(dir: &Path, secrets: &[String]) -> Outcome<(Vec<PathBuf>, usize)> {
    let (mut found, mut read) = (Vec::new(), 0);
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).context(folder.display())? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                read += 1;
                let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
                if secrets.iter().any(|secret| text.contains(secret.as_str())) {
                    found.push(entry.path());
                }
            }
        }
    }
    Ok((found, read))
}
