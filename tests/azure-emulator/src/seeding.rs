//! Makes the bare repositories of a world, with one commit each.
//!
//! A repository that is already there is kept, so that a data directory may be used again.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::{Repository, World};

pub(crate) fn make_repositories(world: &World, data_dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(data_dir)?;
    let projects = world.organizations.iter().flat_map(|organization| &organization.projects);
    for repository in projects.flat_map(|project| &project.repositories) {
        make_repository(repository, data_dir)?;
    }
    Ok(())
}

/// Makes one, unless it is there.
pub(crate) fn make_repository(repository: &Repository, data_dir: &Path) -> io::Result<()> {
    let directory = data_dir.join(format!("{}.git", repository.id));
    if directory.exists() { Ok(()) } else { make(repository, &directory) }
}

fn make(repository: &Repository, directory: &Path) -> io::Result<()> {
    let branch = format!("--initial-branch={}", repository.branch());
    run(git().args(["init", "--quiet", "--bare", "--template=", &branch]).arg(directory), &[])?;
    if repository.files.is_empty() {
        return Ok(());
    }
    run(git().arg("-C").arg(directory).args(["fast-import", "--quiet"]), &import(repository))
}

/// One commit with all files, always the same for the same files.
fn import(repository: &Repository) -> Vec<u8> {
    let message = "Start\n";
    let mut stream = format!(
        "commit refs/heads/{}\ncommitter Emulator <emulator@example.com> 1767225600 +0000\ndata {}\n{message}",
        repository.branch(),
        message.len(),
    );
    for (path, content) in &repository.files {
        let _ = write!(stream, "M 100644 inline {path}\ndata {}\n{content}\n", content.len());
    }
    stream.into_bytes()
}

/// Git without the settings of the person who runs the emulator.
fn git() -> Command {
    let mut git = Command::new("git");
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env_remove("GIT_DIR");
    git
}

fn run(command: &mut Command, input: &[u8]) -> io::Result<()> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().expect("stdin is piped").write_all(input)?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}
