//! `git-setup`: makes git ask this broker, and nobody else, for credentials of Azure Repos.
//!
//! The helper list is reset first: with another helper in it, such as `store`, git would hand our
//! token to that one too, which writes it to disk (threat T28). Repeating it changes nothing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{CliError, Session};
use crate::client::Settings;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// For all repositories of this user
    #[arg(long, conflicts_with_all = ["local", "system"])]
    global: bool,
    /// For the repository here (the default)
    #[arg(long, conflicts_with = "system")]
    local: bool,
    /// For all users of this machine
    #[arg(long)]
    system: bool,
}

/// Where `git config` writes.
struct Config<'a> {
    directory: Option<&'a Path>,
    scope: &'static str,
}

/// Sets what git needs, and what was given as arguments: the environment may change, so it stays out.
pub(super) fn run(session: &mut Session<'_, '_>, args: &Args, given: &Settings) -> Result<(), CliError> {
    let scope = match (args.global, args.system) {
        (true, _) => "--global",
        (false, true) => "--system",
        (false, false) => "--local",
    };
    if given.address.is_some() {
        given.address()?;
    }
    if given.account.is_some() {
        given.account()?;
    }
    let config = Config { directory: None, scope };
    let settings = settings(&helper()?, given);
    config.write(&settings)?;
    let console = &mut *session.console;
    if console.json {
        let shown: Vec<_> =
            settings.iter().map(|(key, values)| json!({ "key": key, "values": values })).collect();
        return console.print_json(&json!({ "scope": scope.trim_start_matches('-'), "settings": shown }));
    }
    for (key, values) in &settings {
        for value in values {
            writeln!(console.out, "git config {scope} {key} {value:?}")?;
        }
    }
    writeln!(console.err, "git now asks the broker for https://dev.azure.com and *.visualstudio.com.")?;
    Ok(())
}

/// Each key with all its values, in order.
fn settings(helper: &str, given: &Settings) -> Vec<(String, Vec<String>)> {
    let mut settings = Vec::new();
    for hosts in HOSTS {
        settings.push((format!("credential.{hosts}.useHttpPath"), vec!["true".to_owned()]));
        settings.push((format!("credential.{hosts}.helper"), vec![String::new(), helper.to_owned()]));
    }
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    for (name, value) in [
        ("address", given.address.clone()),
        ("account", given.account.clone()),
        ("ca", path(&given.ca)),
        ("cert", path(&given.cert)),
        ("key", path(&given.key)),
    ] {
        settings.extend(value.map(|value| (format!("azdo-broker.{name}"), vec![value])));
    }
    settings
}

impl Config<'_> {
    fn write(&self, settings: &[(String, Vec<String>)]) -> Result<(), CliError> {
        for (key, values) in settings {
            for (at, value) in values.iter().enumerate() {
                let mode = if at == 0 { "--replace-all" } else { "--add" };
                self.git(&[mode, key, value])?;
            }
        }
        Ok(())
    }

    fn git(&self, args: &[&str]) -> Result<(), CliError> {
        let mut command = Command::new("git");
        if let Some(directory) = self.directory {
            command.arg("-C").arg(directory);
        }
        let answer = command
            .args(["config", self.scope])
            .args(args)
            .output()
            .map_err(|error| CliError::Usage(format!("cannot run git: {error}")))?;
        if answer.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&answer.stderr);
        Err(CliError::Failed(format!("git config {} {}: {}", self.scope, args[1], words.trim())))
    }
}

/// The name if git finds the helper by it, else where it lies beside this binary.
fn helper() -> Result<String, CliError> {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|directory| directory.join(HELPER).is_file()) {
        return Ok(HELPER_NAME.to_owned());
    }
    let beside = env::current_exe().ok().map(|binary| binary.with_file_name(HELPER));
    match beside.filter(|helper| helper.is_file()) {
        Some(helper) => quote(&helper),
        None => {
            Err(CliError::Usage(format!("{HELPER} is neither on PATH nor beside this binary: install it")))
        }
    }
}

/// git hands the value to a shell.
fn quote(helper: &Path) -> Result<String, CliError> {
    let text = helper.to_str().filter(|text| !text.contains(['\'', '\n']));
    let text = text.ok_or_else(|| CliError::Usage(format!("git cannot run {}", helper.display())))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    Ok(if text.chars().all(plain) { text.to_owned() } else { format!("!'{text}'") })
}

const HOSTS: [&str; 2] = ["https://dev.azure.com", "https://*.visualstudio.com"];
/// As git names it, and as it lies on disk.
const HELPER_NAME: &str = "azdo-broker";
const HELPER: &str = "git-credential-azdo-broker";

#[cfg(test)]
mod tests {
    use super::*;

    fn git(directory: &Path, args: &[&str]) -> String {
        let answer = Command::new("git").arg("-C").arg(directory).args(args).output().unwrap();
        String::from_utf8(answer.stdout).unwrap()
    }

    #[test]
    fn git_resets_its_helpers_asks_with_path_and_repeating_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        git(directory.path(), &["init", "-q"]);
        let config = Config { directory: Some(directory.path()), scope: "--local" };
        let given = Settings { account: Some("acme".into()), ..Settings::default() };
        let mut files = Vec::new();
        for _ in 0..2 {
            config.write(&settings("azdo-broker", &given)).unwrap();
            files.push(std::fs::read_to_string(directory.path().join(".git/config")).unwrap());
        }
        assert_eq!(files[0], files[1]);
        for url in ["https://dev.azure.com/contoso/p/_git/r", "https://contoso.visualstudio.com/p/_git/r"] {
            let shown = git(directory.path(), &["config", "--get-urlmatch", "credential", url]);
            assert!(shown.contains("credential.usehttppath true"), "{url}: {shown}");
        }
        let helpers = git(
            directory.path(),
            &["config", "--local", "--get-all", "credential.https://dev.azure.com.helper"],
        );
        assert_eq!(helpers, "\nazdo-broker\n");
        assert_eq!(git(directory.path(), &["config", "azdo-broker.account"]), "acme\n");
    }

    #[test]
    fn a_helper_off_the_path_is_named_in_full_and_quoted() {
        assert_eq!(
            quote(Path::new("/opt/b/git-credential-azdo-broker")).unwrap(),
            "/opt/b/git-credential-azdo-broker"
        );
        assert_eq!(quote(Path::new("/My Files/helper")).unwrap(), "!'/My Files/helper'");
        assert!(quote(Path::new("/it's/helper")).is_err());
    }
}
