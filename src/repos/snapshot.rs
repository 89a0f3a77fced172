//! What an organization showed to one identity at one moment, kept for a while.
//!
//! # Invariants
//!
//! 1. A snapshot is shown for the connection it was made for: the same link of the same identity, of
//!    the same organization. Refreshes in between change nothing.
//! 2. Of each connection the last few are kept, so that one who pages is not overtaken; of all of them
//!    so many, and so many bytes, as memory bears (P8). The least used go first.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use tokio::sync::Semaphore;

use super::{Filter, Readability, STALE_MAX, Standing};
use crate::clock::{Moment, between};
use crate::connection::{ConnectionKey, Identity};
use crate::devops::{BATCH_LEN_MAX, Repository, RepositoryId};
use crate::ids::Organization;
use crate::secret::make_random;
use crate::tokens::Token;

pub(super) struct Snapshot {
    pub(super) id: u64,
    pub(super) identity: Identity,
    linked_at: Timestamp,
    pub(super) organization: Organization,
    pub(super) taken: Moment,
    /// By project, then name.
    pub(super) repos: Vec<Repository>,
    /// Of each repository whether it may be read: [`UNKNOWN`] until it was asked.
    may_read: Vec<AtomicU8>,
    /// Whose turn it is to ask.
    pub(super) turn: Semaphore,
    bytes: usize,
    /// When it was last shown, in milliseconds of the monotonic clock.
    used: AtomicU64,
}

/// The snapshots of this process.
#[derive(Default)]
pub(super) struct Snapshots {
    /// The youngest last.
    by_key: Mutex<HashMap<ConnectionKey, VecDeque<Arc<Snapshot>>>>,
}

impl Snapshot {
    /// Sorts what came in no particular order.
    pub(super) fn make(
        token: &Token,
        organization: Organization,
        as_of: Moment,
        mut repos: Vec<Repository>,
    ) -> Self {
        repos.sort_by_cached_key(|repo| {
            (repo.project.name.to_lowercase(), repo.name.to_lowercase(), repo.id.clone())
        });
        // The same one twice is one; neighbours, since its names are the same too.
        repos.dedup_by(|one, other| one.id.eq_ignore_ascii_case(&other.id));
        repos.shrink_to_fit();
        Self {
            id: u64::from_be_bytes(make_random()),
            identity: token.identity.clone(),
            linked_at: token.linked_at,
            organization,
            taken: as_of,
            may_read: repos.iter().map(|_| AtomicU8::new(UNKNOWN)).collect(),
            bytes: repos.iter().map(|repo| repo.bytes() + 1).sum(),
            repos,
            turn: Semaphore::new(1),
            used: AtomicU64::new(0),
        }
    }

    pub(super) fn fits(&self, standing: &Standing) -> bool {
        self.is_of(&standing.token) && self.organization == standing.organization
    }

    pub(super) fn is_of(&self, token: &Token) -> bool {
        self.linked_at == token.linked_at && self.identity.is_same_as(&token.identity)
    }

    /// By the clock that saw more time pass.
    pub(super) fn age(&self, now: Moment) -> Duration {
        between(self.taken.wall, now.wall).max(now.monotonic.saturating_sub(self.taken.monotonic))
    }

    /// Where the repositories stand that the filter may show, from `from` on.
    pub(super) fn matching(&self, filter: &Filter, from: usize) -> Vec<usize> {
        let wanted = filter.project.to_lowercase();
        let is_wanted = |repo: &Repository| {
            let in_project = wanted.is_empty()
                || repo.project.id.eq_ignore_ascii_case(&wanted)
                || repo.project.name.to_lowercase() == wanted;
            in_project && (filter.include_unreadable || !repo.is_closed())
        };
        (from..self.repos.len()).filter(|at| is_wanted(&self.repos[*at])).collect()
    }

    /// What is known of a repository; `None` until its permission was asked.
    pub(super) fn readability(&self, at: usize) -> Option<Readability> {
        if self.repos[at].is_closed() {
            return Some(Readability::Disabled);
        }
        match self.may_read[at].load(Ordering::Relaxed) {
            UNKNOWN => None,
            NO => Some(Readability::NoPermission),
            _ => Some(Readability::Readable),
        }
    }

    /// Whose permission a page needs to know and nobody asked yet, filled up to whole batches with what
    /// the next pages will need.
    pub(super) fn questions(&self, shown: &[usize], rest: &[usize]) -> Vec<usize> {
        let is_open = |at: &usize| self.readability(*at).is_none();
        let mut questions: Vec<usize> = shown.iter().copied().filter(is_open).collect();
        if questions.is_empty() {
            return questions;
        }
        let room = questions.len().next_multiple_of(BATCH_LEN_MAX) - questions.len();
        questions.extend(rest.iter().copied().filter(is_open).take(room));
        questions
    }

    pub(super) fn learn(&self, at: usize, may_read: bool) {
        self.may_read[at].store(if may_read { YES } else { NO }, Ordering::Relaxed);
    }

    pub(super) fn repository_id(&self, at: usize) -> RepositoryId<'_> {
        let Repository { id, project, .. } = &self.repos[at];
        RepositoryId { project_id: &project.id, id }
    }

    pub(super) fn note_use(&self, now: Moment) {
        let now = u64::try_from(now.monotonic.as_millis()).unwrap_or(u64::MAX);
        self.used.store(now, Ordering::Relaxed);
    }
}

impl Snapshots {
    pub(super) fn latest(&self, key: &ConnectionKey) -> Option<Arc<Snapshot>> {
        self.by_key.lock().expect("no panic while held").get(key)?.back().cloned()
    }

    pub(super) fn named(&self, key: &ConnectionKey, id: u64) -> Option<Arc<Snapshot>> {
        let by_key = self.by_key.lock().expect("no panic while held");
        by_key.get(key)?.iter().find(|one| one.id == id).cloned()
    }

    pub(super) fn forget(&self, key: &ConnectionKey) {
        self.by_key.lock().expect("no panic while held").remove(key);
    }

    /// Keeps a new one, and lets go of what is too old or too much.
    pub(super) fn put(&self, key: &ConnectionKey, made: Arc<Snapshot>, now: Moment) {
        made.note_use(now);
        let mut by_key = self.by_key.lock().expect("no panic while held");
        let of_key = by_key.entry(key.clone()).or_default();
        // Of another link: nobody may see it any more.
        of_key.retain(|one| one.linked_at == made.linked_at && one.identity.is_same_as(&made.identity));
        of_key.push_back(made);
        if PER_CONNECTION_MAX < of_key.len() {
            of_key.pop_front();
        }
        for of_key in by_key.values_mut() {
            of_key.retain(|one| one.age(now) <= KEPT_MAX);
        }
        by_key.retain(|_, of_key| !of_key.is_empty());
        shrink(&mut by_key, SNAPSHOTS_MAX, BYTES_MAX);
    }
}

/// Lets the least used go until as many and as large are left as may be; the last one always stays.
fn shrink(by_key: &mut HashMap<ConnectionKey, VecDeque<Arc<Snapshot>>>, max: usize, bytes_max: usize) {
    let all = || by_key.values().flatten();
    let (mut count, mut bytes) = (all().count(), all().map(|one| one.bytes).sum::<usize>());
    if count <= max && bytes <= bytes_max {
        return;
    }
    let mut by_use: Vec<(u64, u64, usize)> =
        all().map(|one| (one.used.load(Ordering::Relaxed), one.id, one.bytes)).collect();
    by_use.sort_unstable();
    let mut leaving = Vec::new();
    for (_, id, its_bytes) in by_use {
        if count <= 1 || (count <= max && bytes <= bytes_max) {
            break;
        }
        leaving.push(id);
        count -= 1;
        bytes -= its_bytes;
    }
    for of_key in by_key.values_mut() {
        of_key.retain(|one| !leaving.contains(&one.id));
    }
    by_key.retain(|_, of_key| !of_key.is_empty());
}

const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;
/// The last, and those that somebody may still be paging through.
const PER_CONNECTION_MAX: usize = 3;
const SNAPSHOTS_MAX: usize = 1024;
/// A repository takes about 150 bytes: well over a million of them.
const BYTES_MAX: usize = 256 * 1024 * 1024;
/// As long as it may be shown, and its pages turned.
const KEPT_MAX: Duration = STALE_MAX.saturating_add(super::page::TOKEN_LIFE);
