//! The file of the audit: opened with suspicion, appended to in whole lines.
//!
//! Opening never hangs (a pipe without a reader is an error), never follows a link at the last step, and
//! holds a lock, so that two processes cannot cut off each other's lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, OFlags};

use super::{AuditConfig, AuditError, Sync};

/// An open sink and how far it is known to be good.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// Files have a length and a disk; pipes and devices have neither.
    is_regular: bool,
    sync: Sync,
    /// Where the file must be cut before the next write, because the last one failed.
    cut_at: Option<u64>,
    /// Whether half a line may stand in a pipe, which cannot be cut: it is ended instead.
    is_torn: bool,
    /// How many bytes of the next write the disk still takes.
    #[cfg(test)]
    pub(super) room: Option<usize>,
}

impl Log {
    /// Appends whole lines, or as if nothing: what a failed write left is cut off.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.mend()?;
        let good_len = if self.is_regular { Some(self.file.metadata()?.len()) } else { None };
        let written = self.write(lines).and_then(|()| self.flush());
        if written.is_err() {
            self.cut_at = good_len;
            self.is_torn = !self.is_regular;
        }
        written
    }

    /// Whether what a failed write left is gone, so that its numbers may be used again.
    pub(super) fn is_mended(&mut self) -> bool {
        self.is_regular && self.mend().is_ok()
    }

    fn mend(&mut self) -> io::Result<()> {
        if let Some(good_len) = self.cut_at {
            // Somebody else may have made it shorter; setting the length would then fill it with zeros.
            if good_len < self.file.metadata()?.len() {
                self.file.set_len(good_len)?;
            }
            self.cut_at = None;
        }
        if self.is_torn {
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Some(room) = self.room.take() {
            self.file.write_all(&lines[..room])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(lines)
    }

    fn flush(&self) -> io::Result<()> {
        match self.sync {
            Sync::Disk if self.is_regular => self.file.sync_data(),
            Sync::Disk | Sync::Kernel => Ok(()),
        }
    }

    /// Ends a line that a crash left half-written.
    fn end_torn_line(&mut self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        let mut last = *b"\n";
        if 0 < len {
            self.file.read_exact_at(&mut last, len - 1)?;
        }
        if last == *b"\n" { Ok(()) } else { self.append(b"\n") }
    }

    fn new(file: File, is_regular: bool, sync: Sync) -> Self {
        Self {
            file,
            is_regular,
            sync,
            cut_at: None,
            is_torn: false,
            #[cfg(test)]
            room: None,
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn in_memory(file: File) -> Self {
        rustix::fs::fcntl_setfl(&file, OFlags::APPEND).expect("a file in memory can be appended to");
        Self::new(file, true, Sync::Kernel)
    }
}

pub(super) fn open(config: &AuditConfig) -> Result<Log, AuditError> {
    let path = config.path.as_path();
    let failed = |source| AuditError::Open { path: path.to_owned(), source: Arc::new(source) };
    let is_new = !path.exists();
    let file = open_file(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_fifo() && !kind.is_char_device() {
        return Err(AuditError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.mode() & MODE_BITS;
    // A device's mode is the system's business: /dev/null is everybody's.
    if !kind.is_char_device() && mode & WRITABLE_BY_OTHERS != 0 {
        return Err(AuditError::WritableByOthers { path: path.to_owned(), mode });
    }
    let mut log = Log::new(file, kind.is_file(), config.sync);
    if log.is_regular {
        lock(&log.file, path)?;
        log.end_torn_line().map_err(failed)?;
    }
    if is_new && config.sync == Sync::Disk {
        crate::files::sync_parent(path).map_err(failed)?;
    }
    Ok(log)
}

/// Without `O_NONBLOCK` a pipe without a reader would hang here; with it, the kernel says so. Once open,
/// writes wait again, and whoever waits for them has a deadline.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE).custom_flags(flags.bits().cast_signed());
    // A pipe opened for reading too would always find a reader: itself.
    let is_special = std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file());
    let file = options.read(!is_special).open(path)?;
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

fn lock(file: &File, path: &Path) -> Result<(), AuditError> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => AuditError::InUse { path: path.to_owned() },
        other => AuditError::Open { path: path.to_owned(), source: Arc::new(other.into()) },
    })
}

/// The audit tells who works with whom.
const MODE: u32 = 0o600;
const MODE_BITS: u32 = 0o777;
const WRITABLE_BY_OTHERS: u32 = 0o022;
