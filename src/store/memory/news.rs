//! What other handles changed.
//!
//! As in `PostgreSQL`, whatever may have been missed is told: as [`News::StoreReturned`] at first and after the
//! line was cut, as [`News::Anything`] meanwhile, and now and then even if all seems well.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Memory;
use super::line::{MemoryLine, NewsFault};
use crate::store::rows::News;

/// Owned by who follows.
pub(in crate::store) struct MemoryNews {
    line: MemoryLine,
    ear: Arc<Ear>,
    /// Whether anything may have been missed.
    missed: bool,
    compare_at: Instant,
}

/// Where news arrive for one listener.
pub(super) struct Ear {
    holder: Arc<str>,
    heard: Mutex<VecDeque<(Instant, News)>>,
    arrived: Notify,
}

impl Memory {
    pub(super) fn listen(&self, holder: &Arc<str>) -> Arc<Ear> {
        let ear = Ear { holder: holder.clone(), heard: Mutex::default(), arrived: Notify::new() };
        let ear = Arc::new(ear);
        self.state().ears.push(ear.clone());
        ear
    }
}

impl Ear {
    pub(super) fn is_of(&self, holder: &Arc<str>) -> bool {
        self.holder == *holder
    }

    pub(super) fn tell(&self, news: News) {
        self.heard().push_back((Instant::now(), news));
        self.arrived.notify_one();
    }

    fn heard(&self) -> MutexGuard<'_, VecDeque<(Instant, News)>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryNews {
    pub(super) fn new(line: MemoryLine, ear: Arc<Ear>) -> Self {
        Self { line, ear, missed: true, compare_at: Instant::now() }
    }

    pub(in crate::store) async fn next(&mut self) -> News {
        loop {
            if self.line.is_paused() {
                self.wait(None).await;
                continue;
            }
            if self.line.is_cut() {
                self.missed = true;
                self.ear.heard().clear();
                self.wait(Some(Instant::now() + CALL_AGAIN)).await;
                return News::Anything;
            }
            if self.missed || self.compare_at <= Instant::now() {
                self.compare_at = Instant::now() + COMPARE_EVERY;
                let returned = std::mem::take(&mut self.missed);
                return if returned { News::StoreReturned } else { News::Anything };
            }
            let front = self.ear.heard().front().cloned();
            let due = match (front, self.line.news_fault()) {
                (None, _) => self.compare_at,
                (Some(_), NewsFault::Dropped) => {
                    self.ear.heard().clear();
                    continue;
                }
                (Some((told, _)), NewsFault::Delayed(by)) if Instant::now() < told + by => told + by,
                (Some((_, news)), _) => {
                    self.ear.heard().pop_front();
                    return news;
                }
            };
            self.wait(Some(due.min(self.compare_at))).await;
        }
    }

    async fn wait(&self, until: Option<Instant>) {
        let until = until.unwrap_or_else(|| Instant::now() + FOR_EVER);
        tokio::select! {
            biased;
            () = self.line.changed() => {}
            () = self.ear.arrived.notified() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// As `PostgreSQL`'s.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
const CALL_AGAIN: Duration = Duration::from_millis(250);
const FOR_EVER: Duration = Duration::from_hours(24 * 365);
