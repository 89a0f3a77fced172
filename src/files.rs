//! Reads and makes files that hold secrets, and refuses those that others could read or change.
//!
//! # Invariants
//!
//! 1. What is judged is the opened file, not the path: nothing can be swapped in between.
//! 2. Nobody but the owner and our own group can read it, nobody but the owner can write it.
//! 3. A file is made whole or not at all, and never over another one.
//!
//! Links are followed, because Kubernetes mounts secrets as links. Who owns the file and who may
//! write its directory is not judged: whoever can change those can change the broker too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{getegid, getgroups};
use zeroize::Zeroizing;

/// Why a file is no place for a secret, and what to run.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot make {}", path.display())]
    Unmakeable { path: PathBuf, source: io::Error },
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    #[error(
        "everybody may use {0} (mode {mode:04o}): run `chmod o= {0}`, or mount it with `defaultMode: 0440`",
        path.display()
    )]
    OpenToAll { path: PathBuf, mode: u32 },
    #[error("the group of {0} may write it (mode {mode:04o}): run `chmod g-w {0}`", path.display())]
    GroupWritable { path: PathBuf, mode: u32 },
    #[error(
        "group {group}, to which the broker does not belong, may read {0} (mode {mode:04o}): run `chmod g= {0}`",
        path.display()
    )]
    ForeignGroup { path: PathBuf, mode: u32, group: u32 },
    #[error("{} is longer than {max} bytes", path.display())]
    TooLong { path: PathBuf, max: usize },
}

/// The content of a secret file of at most `max` bytes.
pub fn read_secret(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    let mut file = open_checked(path)?;
    // One buffer of full size: a growing one would leave copies behind.
    let mut content = Zeroizing::new(vec![0; max + 1]);
    let mut len = 0;
    while len < content.len() {
        match file.read(&mut content[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(FileProblem::Unreadable { path: path.into(), source }),
        }
    }
    if max < len {
        return Err(FileProblem::TooLong { path: path.into(), max });
    }
    content.truncate(len);
    Ok(content)
}

/// Whether a secret may stay in this file.
pub fn check_secret(path: &Path) -> Result<(), FileProblem> {
    open_checked(path).map(drop)
}

/// Makes a new file that only its owner can read; durable when this returns.
pub fn create_secret(path: &Path, bytes: &[u8]) -> Result<(), FileProblem> {
    let unmakeable = |source| FileProblem::Unmakeable { path: path.into(), source };
    let file =
        OpenOptions::new().write(true).create_new(true).mode(SECRET_MODE).open(path).map_err(unmakeable)?;
    let written = write_durably(file, path, bytes);
    if written.is_err() {
        // Half a secret is none, and its name would stand in the way of the next attempt.
        fs::remove_file(path).ok();
    }
    written.map_err(unmakeable)
}

/// Makes the names in the directory of `path` survive a power cut.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

fn write_durably(mut file: File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_parent(path)
}

fn open_checked(path: &Path) -> Result<File, FileProblem> {
    let unreadable = |source| FileProblem::Unreadable { path: path.into(), source };
    // Without NONBLOCK a pipe of this name would hold us until somebody writes.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: File =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| unreadable(error.into()))?.into();
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(FileProblem::NotAFile(path.into()));
    }
    let ours = our_groups().map_err(unreadable)?;
    check_mode(path, metadata.mode() & 0o7777, metadata.gid(), &ours)?;
    Ok(file)
}

fn check_mode(path: &Path, mode: u32, group: u32, ours: &[u32]) -> Result<(), FileProblem> {
    let path = path.to_owned();
    if mode & 0o007 != 0 {
        Err(FileProblem::OpenToAll { path, mode })
    } else if mode & 0o020 != 0 {
        Err(FileProblem::GroupWritable { path, mode })
    } else if mode & 0o040 != 0 && !ours.contains(&group) {
        Err(FileProblem::ForeignGroup { path, mode, group })
    } else {
        Ok(())
    }
}

fn our_groups() -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = getgroups()?.into_iter().map(rustix::process::Gid::as_raw).collect();
    groups.push(getegid().as_raw());
    Ok(groups)
}

/// The owner reads and writes, nobody else anything.
const SECRET_MODE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn secret_file(directory: &tempfile::TempDir, mode: u32) -> PathBuf {
        let path = directory.path().join("secret");
        create_secret(&path, b"canary").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn what_was_created_reads_back_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");

        create_secret(&path, b"first").unwrap();
        let again = create_secret(&path, b"second");

        assert!(matches!(again, Err(FileProblem::Unmakeable { .. })));
        assert_eq!(read_secret(&path, 5).unwrap().as_slice(), b"first");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a66_a_file_open_to_all_is_refused_with_the_command_that_mends_it() {
        for mode in [0o604, 0o602, 0o601, 0o644] {
            let directory = tempfile::tempdir().unwrap();
            let path = secret_file(&directory, mode);

            let problem = read_secret(&path, 100).unwrap_err();

            assert!(problem.to_string().contains(&format!("`chmod o= {}`", path.display())), "{problem}");
            assert!(check_secret(&path).is_err());
        }
    }

    #[test]
    fn a66_a_group_may_read_only_if_it_is_ours_and_never_write() {
        let path = Path::new("secret");
        assert!(check_mode(path, 0o440, 7, &[3, 7]).is_ok());
        assert!(check_mode(path, 0o400, 8, &[3, 7]).is_ok());
        let foreign = check_mode(path, 0o440, 8, &[3, 7]).unwrap_err();
        assert_eq!(
            foreign.to_string(),
            "group 8, to which the broker does not belong, may read secret (mode 0440): run `chmod g= secret`"
        );
        let writable = check_mode(path, 0o660, 7, &[3, 7]).unwrap_err();
        assert_eq!(
            writable.to_string(),
            "the group of secret may write it (mode 0660): run `chmod g-w secret`"
        );
    }

    #[test]
    fn links_are_followed_to_the_file_that_is_judged() {
        let directory = tempfile::tempdir().unwrap();
        let path = secret_file(&directory, 0o600);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();

        assert_eq!(read_secret(&link, 100).unwrap().as_slice(), b"canary");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_secret(&link, 100), Err(FileProblem::OpenToAll { .. })));
    }

    #[test]
    fn what_is_no_file_or_too_long_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let path = secret_file(&directory, 0o600);
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();

        assert!(matches!(read_secret(&path, 5), Err(FileProblem::TooLong { max: 5, .. })));
        assert!(matches!(read_secret(directory.path(), 5), Err(FileProblem::NotAFile(_))));
        assert!(matches!(read_secret(&pipe, 5), Err(FileProblem::NotAFile(_))));
        let missing = directory.path().join("missing");
        assert!(matches!(read_secret(&missing, 5), Err(FileProblem::Unreadable { .. })));
    }
}
