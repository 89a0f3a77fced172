//! Everything works again: what is left?

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::super::given::allowed;
use super::checks::Violation;
use super::entra::Fate;
use super::run::{Done, Run, What, key_of};
use super::schedule::{MOMENT, Step};
use crate::connection::{ConnectionKey, Identity};
use crate::entra::Rotation;
use crate::reason::{Problem, Reason};

impl Run<'_> {
    /// Everything works again, and everybody's clock is right.
    pub(super) fn heal(&mut self) {
        self.tell(|| "everything heals".to_owned());
        self.pending.retain(|_, pending| !matches!(pending.what, What::Later(_)));
        self.world.entra.heal();
        for replica in self.replicas.iter().chain(&self.retired) {
            replica.resume();
            replica.line.heal();
            replica.line.set_delays([MOMENT]);
            replica.clock.set_wall_ahead(0);
        }
        self.mislead();
    }

    /// Until every token of before has expired, and every pause of before is over.
    pub(super) fn settling(&self) -> Duration {
        let slow = |(_, step): &(Duration, Step)| matches!(step, Step::Entra(Fate::BadCredential));
        let longest_pause = if self.schedule.steps.iter().any(slow) { 20 } else { 7 };
        self.schedule.lifetime.max(Duration::from_mins(longest_pause))
    }

    /// P4: every connection that no person ended gives tokens again, or says that a person must link it again
    /// where its grant is lost. And every replica says what the row says.
    pub(super) async fn look_what_is_left(&mut self) -> Result<(), Violation> {
        for place in 0..self.replicas.len() {
            for key in 0..self.schedule.keys {
                self.look_at(place, &key_of(key)).await?;
            }
        }
        Ok(())
    }

    async fn look_at(&mut self, place: usize, key: &ConnectionKey) -> Result<(), Violation> {
        let mut last = None;
        for _ in 0..LOOKS {
            last = self.ask_once(place, key).await?;
            let is_over = |problem: &Problem| !problem.reason.is_transient();
            if last.as_ref().is_some_and(|last| last.as_ref().map_or_else(is_over, |_| true)) {
                break;
            }
            self.pass(Duration::from_mins(3)).await?;
        }
        let name = &self.replicas[place].name;
        let last = last.ok_or_else(|| format!("P8: {name} never answers for {key}"))?;
        let standing = self.checks.standing(key);
        // Where each grant works once it may be lost with an answer, or with who was about to send it.
        let may_be_lost = self.schedule.rotation == Rotation::Strict
            && (self.schedule.crashes() || standing.is_some_and(|entry| self.checks.may_be_used(entry)));
        let Some(family) = standing.and_then(|entry| entry.family) else {
            return match last {
                Err(problem) if problem.reason == Reason::NotLinked => Ok(()),
                other => Err(format!("P7: {key} is not linked, and {name} answers {other:?}")),
            };
        };
        let family = self.world.entra.family(family);
        match last {
            Ok(identity) if identity.is_same_as(&family.identity) => Ok(()),
            Ok(identity) => Err(format!("P7: {name} answers {} for {key}", identity.login)),
            Err(problem) if problem.reason == Reason::RelinkRequired => {
                self.tally.reported_losses += 1;
                if family.is_revoked || may_be_lost {
                    return Ok(());
                }
                Err(format!("P4: {name} says that {key} is lost, and it is not"))
            }
            Err(problem) => Err(format!("P4: {key} is lost and {name} says only: {problem}")),
        }
    }

    /// Whose token it answers, or why there is none; `None` if it does not answer.
    async fn ask_once(
        &mut self,
        place: usize,
        key: &ConnectionKey,
    ) -> Result<Option<Result<Identity, Problem>>, Violation> {
        let (tokens, wanted) = (self.replicas[place].tokens.clone(), key.clone());
        let told = Rc::new(RefCell::new(None));
        let tell = told.clone();
        let work = async move {
            let answer = tokens.token(&allowed(), &wanted, Duration::from_mins(1)).await;
            let whose = answer.as_ref().map(|token| token.identity.clone());
            *tell.borrow_mut() = Some(whose.map_err(Clone::clone));
            Done::Answer(answer)
        };
        let what = What::Ask { key: key.clone(), min_ttl: Duration::from_mins(1) };
        self.add(Some(self.replicas[place].clone()), what, work);
        self.pass(Duration::from_secs(20)).await?;
        Ok(told.take())
    }
}

/// A refused grant is believed when it is refused again, five minutes later.
const LOOKS: u32 = 4;
