//! The two ways in which git asks a credential helper and carries what it gets.
//!
//! git 2.46 and later offer `authtype`, and are answered with a bearer token; older ones know a user name and a
//! password, which they send as Basic. Both are proven on every machine that has a git of today.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::HELPER;

/// A git, and how it asks.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) git: PathBuf,
    /// It offers `authtype`, and a helper between it and ours takes the offer away.
    plays_an_old_one: bool,
    /// How the token travels to Azure DevOps.
    pub(crate) scheme: &'static str,
}

impl Way {
    /// Every git of this machine in its own way, and a new one in the old way too: there may be no old one.
    #[expect(clippy::print_stderr, reason = "what a machine cannot prove is told, and fails nothing")]
    pub(crate) fn all() -> Vec<Self> {
        let mut ways: Vec<Self> = gits().into_iter().filter_map(Self::of).collect();
        let new = ways.iter().find(|way| way.scheme == "Bearer").cloned();
        match new {
            Some(new) => ways.push(Self { plays_an_old_one: true, scheme: "Basic", ..new }),
            None => {
                eprintln!("NOT PROVEN: no git here is 2.46 or later, to be answered with authtype=Bearer");
            }
        }
        assert!(!ways.is_empty(), "there is no git");
        ways
    }

    fn of(git: PathBuf) -> Option<Self> {
        let told = Command::new(&git).arg("version").output().ok()?;
        let told = String::from_utf8(told.stdout).ok()?;
        let mut numbers =
            told.split_whitespace().nth(2)?.split('.').map(|number| number.parse().unwrap_or(0));
        let version: (u32, u32) = (numbers.next()?, numbers.next()?);
        let scheme = if (2, 46) <= version { "Bearer" } else { "Basic" };
        Some(Self { git, plays_an_old_one: false, scheme })
    }

    /// The folders that come first on the path of whoever asks this way; `home` is theirs.
    pub(crate) fn path(&self, home: &Path) -> Vec<PathBuf> {
        let mut folders = vec![self.git.parent().unwrap().to_owned()];
        if self.plays_an_old_one {
            let between = home.join("between");
            std::fs::create_dir_all(&between).unwrap();
            let script = format!("#!/bin/sh\nsed '/^capability\\[]=authtype$/d' | exec '{HELPER}' \"$@\"\n");
            let helper = between.join("git-credential-azdo-broker");
            std::fs::write(&helper, script).unwrap();
            std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
            folders.insert(0, between);
        }
        folders
    }
}

/// Each once, however many names it has.
fn gits() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    let usual = ["/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    let mut found: Vec<(PathBuf, PathBuf)> = Vec::new();
    for git in std::env::split_paths(&path).chain(usual).map(|folder| folder.join("git")) {
        let Ok(file) = git.canonicalize() else { continue };
        if !found.iter().any(|(_, known)| *known == file) {
            found.push((git, file));
        }
    }
    found.into_iter().map(|(git, _)| git).collect()
}
