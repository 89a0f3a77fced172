//! The way from one handle to the memory: tests make it slow, stop it, and break it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::store::error::StoreError;

/// Whole and without delay, until a test says otherwise. Clones are the same line.
#[derive(Clone, Default)]
pub struct MemoryLine(Arc<Shared>);

/// What becomes of a question.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fault {
    #[default]
    None,
    /// It does not arrive.
    Unreachable,
    /// It is done, and the answer does not arrive.
    AnswerLost,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    standing: Fault,
    /// Of the next questions, one each.
    next: VecDeque<Fault>,
    is_paused: bool,
    delays: VecDeque<Duration>,
    news: NewsFault,
    troubled_at: Option<Instant>,
    news_troubled_at: Option<Instant>,
}

/// What becomes of news on the way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum NewsFault {
    #[default]
    None,
    Dropped,
    Delayed(Duration),
}

impl MemoryLine {
    /// From now on every question fares like this.
    pub fn set(&self, fault: Fault) {
        {
            let mut state = self.state();
            state.standing = fault;
            state.note_trouble();
        }
        self.0.changed.notify_waiters();
    }

    /// The next question that is not yet spoken for fares like this.
    pub fn next(&self, fault: Fault) {
        self.state().next.push_back(fault);
    }

    /// Questions take their way, there or back, in these times, in turn and again and again.
    pub fn set_delays(&self, delays: impl IntoIterator<Item = Duration>) {
        self.state().delays = delays.into_iter().collect();
    }

    /// While paused, nothing arrives at either end.
    pub fn set_paused(&self, is_paused: bool) {
        {
            let mut state = self.state();
            state.is_paused = is_paused;
            state.note_trouble();
        }
        self.0.changed.notify_waiters();
    }

    /// News do not arrive, and nobody learns that they did not.
    pub fn drop_news(&self) {
        self.set_news(NewsFault::Dropped);
    }

    pub fn delay_news(&self, by: Duration) {
        self.set_news(NewsFault::Delayed(by));
    }

    pub fn heal_news(&self) {
        self.set_news(NewsFault::None);
    }

    /// How long it has been whole, by tokio's clock; `None` while it is not.
    pub fn whole_for(&self) -> Option<Duration> {
        let state = self.state();
        if state.standing != Fault::None || state.is_paused {
            return None;
        }
        Some(state.troubled_at.map_or(Duration::MAX, |at| at.elapsed()))
    }

    /// The same of news alone.
    pub fn news_whole_for(&self) -> Option<Duration> {
        let state = self.state();
        if state.news != NewsFault::None {
            return None;
        }
        Some(state.news_troubled_at.map_or(Duration::MAX, |at| at.elapsed()))
    }

    /// Everything as it was in the beginning, but for a pause.
    pub fn heal(&self) {
        {
            let mut state = self.state();
            state.standing = Fault::None;
            state.next.clear();
            state.note_trouble();
        }
        self.heal_news();
        self.0.changed.notify_waiters();
    }

    /// The way there. What fails on it was not done; the answer tells what is to become of the way back.
    pub(super) async fn go(&self, doing: &'static str) -> Result<Fault, StoreError> {
        let fault = self.state().next.pop_front();
        self.pass().await;
        let fault = fault.unwrap_or_else(|| self.state().standing);
        if fault == Fault::Unreachable {
            self.state().note_trouble();
            return Err(unreachable(doing));
        }
        Ok(fault)
    }

    /// The way back, which may have broken meanwhile.
    pub(super) async fn come_back(&self, doing: &'static str, fault: Fault) -> Result<(), StoreError> {
        self.pass().await;
        if fault == Fault::AnswerLost || self.is_cut() {
            self.state().note_trouble();
            return Err(unreachable(doing));
        }
        Ok(())
    }

    pub(super) fn is_cut(&self) -> bool {
        self.state().standing == Fault::Unreachable
    }

    pub(super) fn is_paused(&self) -> bool {
        self.state().is_paused
    }

    pub(super) fn news_fault(&self) -> NewsFault {
        self.state().news
    }

    /// Something about the line changed: look again.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn set_news(&self, fault: NewsFault) {
        let mut state = self.state();
        state.news = fault;
        state.news_troubled_at = Some(Instant::now());
        drop(state);
        self.0.changed.notify_waiters();
    }

    async fn pass(&self) {
        let delay = {
            let mut state = self.state();
            let delay = state.delays.pop_front();
            state.delays.extend(delay);
            delay
        };
        if let Some(delay) = delay.filter(|delay| !delay.is_zero()) {
            tokio::time::sleep(delay).await;
        }
        loop {
            // Asked for before the look, so that no change is missed; woken in the order of asking.
            let changed = self.0.changed.notified();
            if !self.is_paused() {
                return;
            }
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note_trouble(&mut self) {
        self.troubled_at = Some(Instant::now());
    }
}

fn unreachable(doing: &'static str) -> StoreError {
    StoreError::Unreachable {
        doing,
        place: "the memory of the test".to_owned(),
        source: "the line is broken".into(),
    }
}
