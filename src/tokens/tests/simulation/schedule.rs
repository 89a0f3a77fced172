//! What happens, and when: drawn from the seed before anything runs, so that it can be printed and cut down.

use std::fmt;
use std::time::Duration;

use super::entra::Fate;
use super::luck::Luck;
use crate::entra::Rotation;
use crate::store::memory::Fault;

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) rotation: Rotation,
    pub(super) replicas: usize,
    pub(super) keys: usize,
    pub(super) lifetime: Duration,
    pub(super) tick: Duration,
    /// How long ways take, in turn: of each replica to the store, and of all to Entra.
    pub(super) store_delays: Vec<Vec<Duration>>,
    pub(super) entra_delays: Vec<Duration>,
    /// Each with the time that passes before it.
    pub(super) steps: Vec<(Duration, Step)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Callers want a token.
    Ask {
        replica: usize,
        key: usize,
        callers: u64,
        min_ttl: Duration,
    },
    /// Whoever waits goes away.
    Leave,
    /// A holder was refused with the last token that was released here.
    Report {
        replica: usize,
        key: usize,
    },
    Disconnect {
        replica: usize,
        key: usize,
    },
    /// Somebody, perhaps somebody else, signs in and confirms.
    Relink {
        replica: usize,
        key: usize,
        whom: usize,
    },
    /// An administrator revokes all grants of the connection.
    Revoke {
        key: usize,
    },
    /// Gone at once; another one starts in its place.
    Crash {
        replica: usize,
    },
    /// Stops as it should, while another one starts in its place.
    Replace {
        replica: usize,
    },
    /// Stands still (SIGSTOP); with `suspended` its monotonic clock too (a machine that sleeps).
    Pause {
        replica: usize,
        lasting: Duration,
        suspended: bool,
    },
    /// The wall clock is set to this much ahead of the truth.
    SetClock {
        replica: usize,
        ahead_s: i64,
    },
    Store {
        replica: usize,
        fault: Fault,
        lasting: Duration,
    },
    StoreOnce {
        replica: usize,
        fault: Fault,
    },
    /// News of other replicas do not arrive, or late.
    News {
        replica: usize,
        late: Option<Duration>,
        lasting: Duration,
    },
    EntraDown {
        lasting: Duration,
    },
    Entra(Fate),
}

impl Schedule {
    /// Whether anybody dies: what they foresaw stands.
    pub(super) fn crashes(&self) -> bool {
        self.steps.iter().any(|(_, step)| matches!(step, Step::Crash { .. }))
    }

    /// Even seeds: used grants go on working. Odd ones: using one again revokes its family.
    pub(super) fn draw(seed: u64) -> Self {
        let mut luck = Luck::new(seed);
        let rotation = if seed.is_multiple_of(2) { Rotation::Lenient } else { Rotation::Strict };
        let replicas = 1 + luck.index(3);
        let keys = 1 + luck.index(3);
        let lifetime = luck.seconds(3 * 60, 8 * 60);
        let tick = luck.seconds(20, 60);
        let slowest = luck.pick(&[1, 5, 40, 400]);
        let store_delays =
            (0..replicas).map(|_| (0..7).map(|_| luck.millis(slowest) + MOMENT).collect()).collect();
        let slowest = luck.pick(&[200, 2_000, 4_500]);
        let entra_delays = (0..5).map(|_| luck.millis(slowest) + MOMENT).collect();
        let count = 8 + luck.index(18);
        let mut schedule = Self {
            seed,
            rotation,
            replicas,
            keys,
            lifetime,
            tick,
            store_delays,
            entra_delays,
            steps: vec![],
        };
        for _ in 0..count {
            let wait = schedule.draw_wait(&mut luck);
            let step = schedule.draw_step(&mut luck);
            schedule.steps.push((wait, step));
        }
        schedule
    }

    /// One connection, no delays, and nothing but these steps.
    pub(super) fn calm(replicas: usize, steps: Vec<(Duration, Step)>) -> Self {
        Self {
            seed: 0,
            rotation: Rotation::Lenient,
            replicas,
            keys: 1,
            lifetime: Duration::from_mins(5),
            tick: Duration::from_secs(45),
            store_delays: vec![vec![MOMENT]; replicas],
            entra_delays: Vec::new(),
            steps,
        }
    }

    fn draw_wait(&self, luck: &mut Luck) -> Duration {
        match luck.below(20) {
            0..4 | 19.. => Duration::ZERO,
            4..9 => luck.millis(300),
            9..13 => luck.millis(5_000),
            13..16 => luck.seconds(5, 60),
            16..18 => luck.seconds(60, 3 * 60),
            18 => self.lifetime.mul_f64(0.4) + luck.seconds(0, 5 * 60),
        }
    }

    fn draw_step(&mut self, luck: &mut Luck) -> Step {
        let (replica, key) = (luck.index(self.replicas), luck.index(self.keys));
        match luck.below(100) {
            0..38 => {
                let callers = luck.pick(&[1, 1, 2, 5]);
                let min_ttl = luck.pick(&[1, 30, 60, 60, 60, 120, 300]);
                Step::Ask { replica, key, callers, min_ttl: Duration::from_secs(min_ttl) }
            }
            38..41 => Step::Leave,
            41..46 => Step::Report { replica, key },
            46..50 => Step::Disconnect { replica, key },
            50..55 => Step::Relink { replica, key, whom: luck.index(WHO.len()) },
            55 => Step::Revoke { key },
            56..61 => Step::Crash { replica },
            61..63 => Step::Replace { replica },
            63..69 => {
                let lasting = luck.pick(&[1, 8, 20, 90]);
                let suspended = replica != WRONG_CLOCK && luck.chance(30);
                Step::Pause { replica, lasting: Duration::from_secs(lasting), suspended }
            }
            69..73 => {
                let ahead_s = luck.pick(&[-3600, -300, -5, 5, 300, 3600]);
                Step::SetClock { replica: WRONG_CLOCK, ahead_s }
            }
            73..79 => {
                let fault = luck.pick(&[Fault::Unreachable, Fault::Unreachable, Fault::AnswerLost]);
                let lasting = luck.pick(&[300, 2_000, 20_000, 150_000]);
                Step::Store { replica, fault, lasting: Duration::from_millis(lasting) }
            }
            79..86 => Step::StoreOnce { replica, fault: luck.pick(&[Fault::Unreachable, Fault::AnswerLost]) },
            86..88 => Step::EntraDown { lasting: luck.seconds(1, 4 * 60) },
            88..90 => {
                let late = luck.chance(50).then(|| luck.seconds(1, 5));
                Step::News { replica, late, lasting: luck.seconds(1, 60) }
            }
            _ => Step::Entra(self.draw_fate(luck)),
        }
    }

    /// A grant is refused by mistake once at most: twice, minutes apart, is believed (design.md 6.7).
    fn draw_fate(&self, luck: &mut Luck) -> Fate {
        let refused = |(_, step): &(Duration, Step)| matches!(step, Step::Entra(Fate::RefusedOnce));
        match luck.below(11) {
            0..4 => Fate::AnswerLost,
            4 => Fate::BadCredential,
            5 => Fate::Hangs { acted: luck.chance(50) },
            6 if !self.steps.iter().any(refused) => Fate::RefusedOnce,
            6..8 => Fate::Throttled { retry_after_s: luck.pick(&[1, 30, 120]) },
            _ => Fate::Unusable,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, rotation, replicas, keys, lifetime, tick, .. } = self;
        writeln!(f, "seed {seed}: {rotation:?} rotation, {replicas} replicas, {keys} connections,")?;
        writeln!(f, "tokens live {lifetime:?}, a look at what is due every {tick:?}")?;
        writeln!(f, "ways to the store {:?}, to Entra {:?}", self.store_delays, self.entra_delays)?;
        self.steps.iter().try_for_each(|(wait, step)| writeln!(f, "  after {wait:?}: {step:?}"))
    }
}

/// No way is quicker, so that whatever goes round and round takes time, and is noticed.
pub(super) const MOMENT: Duration = Duration::from_millis(1);
/// Whose wall clock is set. Its machine does not sleep: where both clocks are wrong, nobody can know the time
/// (design.md 6.18).
const WRONG_CLOCK: usize = 0;
/// Who may sign in.
pub(super) const WHO: [&str; 3] = ["ana", "bob", "cleo"];
