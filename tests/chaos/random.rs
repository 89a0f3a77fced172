//! Chance that can be had again: the same seed, the same choices.

use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0, below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // Knuth's MMIX generator; its upper bits are good.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }

    pub(crate) fn pick(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }

    pub(crate) fn micros(&mut self, end: u64) -> Duration {
        Duration::from_micros(self.below(end))
    }

    /// `count` different numbers below `end`.
    pub(crate) fn choose(&mut self, count: usize, end: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..end).collect();
        let mut chosen = Vec::new();
        while chosen.len() < count && !all.is_empty() {
            let at = self.pick(all.len());
            chosen.push(all.swap_remove(at));
        }
        chosen
    }
}
