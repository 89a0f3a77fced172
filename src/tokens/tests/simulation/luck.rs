//! Draws that follow from one seed.

use std::time::Duration;

use crate::secret::foreseen::draw;

pub(super) struct Luck(u64);

impl Luck {
    pub(super) fn new(seed: u64) -> Self {
        // Mixed, so that neighbouring seeds have nothing in common.
        let mut state = seed ^ 0x5851_f42d_4c95_7f2d;
        Self(draw(&mut state))
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        draw(&mut self.0) % bound
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).expect("is small"))).expect("is small")
    }

    /// True in `percent` of a hundred cases.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    pub(super) fn millis(&mut self, below: u64) -> Duration {
        Duration::from_millis(self.below(below))
    }

    pub(super) fn seconds(&mut self, from: u64, below: u64) -> Duration {
        Duration::from_secs(from + self.below(below - from))
    }
}
