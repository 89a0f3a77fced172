//! Moves a store from one place to another: from a file into a database, or back.
//!
//! # Invariants
//!
//! 1. Nothing is opened on the way: rows are copied sealed, with the store's id and its wrapped keyring, so
//!    that the same key file opens them there.
//! 2. At no moment two stores of one id may be served. The old one is marked before the new one is made, and
//!    the new one is served only after the old one says that it moved; a copy that breaks off leaves neither.
//!    From the mark on the old one takes no write: of a file this process holds the lock, and a database
//!    refuses, also those whom nobody saw.
//! 3. It may be run again until it is done: what is there already is skipped, nothing newer is overwritten.

use std::sync::Arc;

use super::error::StoreError;
use super::rows::{Cas, Count, Cursor, Page, Relocation};
use super::{Backend, Store, StorePlace};
use crate::clock::Clock;
use crate::ids::StoreId;

/// How a copy ended well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Copied {
    /// All is there that names something; perhaps after an earlier copy that had broken off.
    Whole { count: Count, is_resumed: bool, left_out: u64 },
    /// An earlier copy had done it all. Nothing was touched.
    Before,
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("the store is there already: name another place to copy it to")]
    SamePlace,
    #[error("{others} connections of brokers use {from}: stop them all first")]
    InUse { from: String, others: i64 },
    #[error("a broker refreshes a connection in {from}: stop all brokers, and run this again in a minute")]
    Refreshing { from: String },
    #[error("another `store copy` moves {from} too: run this again when it has ended")]
    Overtaken { from: String },
    #[error(
        "{from} and {to} both hold the store {store_id}: find out which one is in use, and remove the other"
    )]
    Twins { from: String, to: String, store_id: StoreId },
    #[error(
        "{from} was moved to {to}, and nothing is there any more: restore a backup of it; what {from} has is old"
    )]
    Gone { from: String, to: String },
    #[error("{to} holds another store: name an empty place to copy to")]
    Other { to: String },
    #[error(
        "after the copy {to} has {found:?} and {from} has {wanted:?}: {to} is not used; remove it and begin again"
    )]
    Differs { from: String, to: String, found: Count, wanted: Count },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What `store copy` needs.
impl Store {
    pub(super) async fn relocation(&self) -> Result<Relocation, StoreError> {
        ask!(self.relocation())
    }

    /// Won if it stood as expected, and (where it is to leave) no lease was in force.
    async fn set_relocation(&self, expected: Relocation, next: Relocation) -> Result<Cas, StoreError> {
        ask!(self.set_relocation(expected, next))
    }

    pub(super) async fn page(&self, from: Cursor, rows: usize) -> Result<Page, StoreError> {
        ask!(self.page(from, rows))
    }

    /// Won if it is still arriving.
    pub(super) async fn fill(&self, page: Page) -> Result<Cas, StoreError> {
        ask!(self.fill(page))
    }

    async fn count(&self) -> Result<Count, StoreError> {
        ask!(self.count())
    }
}

/// Copies everything and hands the store over; `progress` hears how many rows of how many are there.
pub async fn copy(
    from: &StorePlace,
    to: &StorePlace,
    clock: Arc<dyn Clock>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Copied, CopyError> {
    let names = (from.to_string(), to.to_string());
    if names.0 == names.1 {
        return Err(CopyError::SamePlace);
    }
    let source = Store::open_wherever(from, clock.clone(), HOLDER).await?;
    source.check_unused(&names.0).await?;
    let standing = source.relocation().await?;
    match standing.clone() {
        Relocation::Home => {}
        Relocation::Leaving(place) | Relocation::Moved(place) if place == names.1 => {}
        Relocation::Arriving => return Err(StoreError::Arriving { place: names.0 }.into()),
        Relocation::Leaving(to) => return Err(StoreError::Leaving { place: names.0, to }.into()),
        Relocation::Moved(to) => return Err(StoreError::Moved { place: names.0, to }.into()),
    }
    let is_resumed = standing != Relocation::Home;
    let (leaving, moved) = (Relocation::Leaving(names.1.clone()), Relocation::Moved(names.1.clone()));
    let target = match Store::open_wherever(to, clock.clone(), HOLDER).await {
        // It was whole there before anybody was told so.
        Err(StoreError::NoStore(_)) if standing == moved => {
            return Err(CopyError::Gone { from: names.0, to: names.1 });
        }
        Err(StoreError::NoStore(_)) => None,
        opened => {
            let target = opened?;
            let is_same = target.store_id() == source.store_id();
            if is_same && standing == moved && target.relocation().await? == Relocation::Home {
                return Ok(Copied::Before);
            }
            Some(check_target(&source, target, &names).await?)
        }
    };
    if !is_resumed && source.set_relocation(Relocation::Home, leaving.clone()).await? == Cas::Lost {
        let from = names.0;
        return Err(match source.relocation().await? {
            Relocation::Home => CopyError::Refreshing { from },
            _ => CopyError::Overtaken { from },
        });
    }
    let target = if let Some(target) = target {
        target
    } else {
        let keyring = source.wrapped_keyring().await?;
        Store::create_as(to, source.store_id(), &keyring, &Relocation::Arriving).await?;
        Store::open_wherever(to, clock, HOLDER).await?
    };
    let (count, left_out) = fill(&source, &target, &names, progress).await?;
    let marked = if standing == moved { Cas::Won } else { source.set_relocation(leaving, moved).await? };
    source.compact().await?;
    let handed_over = match marked {
        Cas::Won => target.set_relocation(Relocation::Arriving, Relocation::Home).await?,
        Cas::Lost => Cas::Lost,
    };
    match handed_over {
        Cas::Won => Ok(Copied::Whole { count, is_resumed, left_out }),
        Cas::Lost => Err(CopyError::Overtaken { from: names.0 }),
    }
}

/// Only what an earlier copy of the same store left may be filled.
async fn check_target(
    source: &Store,
    target: Store,
    (from, to): &(String, String),
) -> Result<Store, CopyError> {
    if target.store_id() != source.store_id() {
        return Err(CopyError::Other { to: to.clone() });
    }
    match target.relocation().await? {
        Relocation::Arriving => Ok(target),
        Relocation::Home => {
            Err(CopyError::Twins { from: from.clone(), to: to.clone(), store_id: source.store_id().clone() })
        }
        Relocation::Leaving(place) => Err(StoreError::Leaving { place: to.clone(), to: place }.into()),
        Relocation::Moved(place) => Err(StoreError::Moved { place: to.clone(), to: place }.into()),
    }
}

/// How many rows are there, and how many were left out because they name nothing: nobody could ever find them.
async fn fill(
    source: &Store,
    target: &Store,
    (from, to): &(String, String),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Count, u64), CopyError> {
    let all = source.count().await?.all();
    let mut next = Some(Cursor::Start);
    let mut wanted = Count::default();
    while let Some(cursor) = next {
        let mut page = source.page(cursor, ROWS_AT_ONCE).await?;
        next = page.next.take();
        wanted.add(&page);
        if target.fill(page).await? == Cas::Lost {
            return Err(CopyError::Overtaken { from: from.clone() });
        }
        progress(wanted.all(), all);
    }
    let found = target.count().await?;
    if found == wanted {
        Ok((found, all.saturating_sub(found.all())))
    } else {
        Err(CopyError::Differs { from: from.clone(), to: to.clone(), found, wanted })
    }
}

impl Store {
    async fn check_unused(&self, from: &str) -> Result<(), CopyError> {
        match &self.backend {
            // Its lock says so.
            Backend::Sqlite(_) => Ok(()),
            Backend::Postgres(postgres) => match postgres.others().await? {
                0 => Ok(()),
                others => Err(CopyError::InUse { from: from.to_owned(), others }),
            },
            #[cfg(any(test, feature = "testing"))]
            Backend::Memory(_) => unreachable!("a store in memory stays where it is"),
        }
    }
}

const HOLDER: &str = "store copy";
/// One transaction each; a few kilobytes a row.
const ROWS_AT_ONCE: usize = 200;
