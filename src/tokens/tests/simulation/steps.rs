//! What each step of a schedule begins.

use std::rc::Rc;
use std::time::Duration;

use super::super::Reported;
use super::super::given::allowed;
use super::people::{self, identity_of};
use super::replica::Replica;
use super::run::{Bug, Done, Later, Pending, Run, What, key_of};
use super::schedule::Step;
use crate::clock::Clock as _;

impl Run<'_> {
    pub(super) fn begin(&mut self, step: Step) {
        match step {
            Step::Ask { replica, key, callers, min_ttl } => {
                for _ in 0..callers {
                    self.ask(replica, key, min_ttl);
                }
            }
            Step::Leave => {
                let asks =
                    |pending: &Pending| matches!(pending.what, What::Ask { .. } | What::Replacement { .. });
                self.pending.retain(|_, pending| !asks(pending));
            }
            Step::Report { replica, key } => self.report(replica, key),
            Step::Disconnect { replica, key } => {
                let (replica, key) = (self.replicas[replica].clone(), key_of(key));
                let work = people::disconnect(replica.clone(), key.clone());
                self.add(Some(replica), What::Person { key }, work);
            }
            Step::Relink { replica, key, whom } => self.relink(replica, key, whom),
            Step::Revoke { key } => self.world.entra.revoke(&key_of(key)),
            Step::Crash { replica } => {
                let gone = self.start_another(replica);
                gone.crash();
                self.pending
                    .retain(|_, pending| !pending.replica.as_ref().is_some_and(|of| Rc::ptr_eq(of, &gone)));
            }
            Step::Replace { replica } => {
                let gone = self.start_another(replica);
                gone.stop();
                self.retired.push(gone);
            }
            Step::Pause { replica, lasting, suspended } => {
                let replica = self.replicas[replica].clone();
                replica.pause();
                let suspended = suspended.then_some(lasting);
                self.later(Some(replica), lasting, Later::Resume { suspended });
            }
            Step::SetClock { replica, ahead_s } => {
                self.replicas[replica].clock.set_wall_ahead(ahead_s);
                self.mislead();
            }
            Step::Store { replica, fault, lasting } => {
                let replica = self.replicas[replica].clone();
                replica.line.set(fault);
                self.later(Some(replica), lasting, Later::StoreHeals);
            }
            Step::StoreOnce { replica, fault } => self.replicas[replica].line.next(fault),
            Step::News { replica, late, lasting } => {
                let replica = self.replicas[replica].clone();
                match late {
                    Some(late) => replica.line.delay_news(late),
                    None => replica.line.drop_news(),
                }
                self.later(Some(replica), lasting, Later::NewsHeal);
            }
            Step::EntraDown { lasting } => {
                self.world.entra.set_down(true);
                self.later(None, lasting, Later::EntraIsUp);
            }
            Step::Entra(fate) => self.world.entra.next(fate),
        }
    }

    fn ask(&mut self, replica: usize, key: usize, min_ttl: Duration) {
        let (replica, key) = (self.replicas[replica].clone(), key_of(key));
        let (tokens, wanted) = (replica.tokens.clone(), key.clone());
        let held = self.checks.held(&replica.name, &key).cloned();
        let must_wait = self.bug == Some(Bug::ReadsWaitBehindRefreshes) && self.checks.is_refreshing();
        let is_careless = self.bug == Some(Bug::OldTokensAreGood);
        let work = async move {
            if must_wait {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            match held.filter(|_| is_careless) {
                Some(held) => Done::Answer(Ok(held.token)),
                None => Done::Answer(tokens.token(&allowed(), &wanted, min_ttl).await),
            }
        };
        self.add(Some(replica), What::Ask { key, min_ttl }, work);
    }

    fn report(&mut self, replica: usize, key: usize) {
        let (replica, key) = (self.replicas[replica].clone(), key_of(key));
        let Some(held) = self.checks.held(&replica.name, &key) else { return };
        let fingerprint = held.token.fingerprint.clone();
        if replica.is_paused() || replica.tokens.report(&allowed(), &key, &fingerprint) != Reported::Replacing
        {
            return;
        }
        let (tokens, wanted) = (replica.tokens.clone(), key.clone());
        let work =
            async move { Done::Answer(tokens.token_other_than(&allowed(), &wanted, &fingerprint).await) };
        self.add(Some(replica), What::Replacement { key }, work);
    }

    fn relink(&mut self, replica: usize, key: usize, whom: usize) {
        let (replica, key, identity) = (self.replicas[replica].clone(), key_of(key), identity_of(whom));
        let answered = self.world.entra.sign_in(&key, &identity);
        let at = self.world.truth.now().monotonic;
        let (link, connection) = people::signed_in(self.numbers, &key, &identity, answered, at);
        let whole = self.checks.vault().clone();
        let confirming = replica.clone();
        let work = async move {
            // Of no concern here: what comes before the confirmation.
            whole.insert_link(&link).await.expect("this line is whole");
            people::confirm(confirming, link, connection).await
        };
        self.add(Some(replica), What::Person { key }, work);
    }

    pub(super) fn mislead(&mut self) {
        self.pending.values_mut().for_each(|pending| pending.was_misled = true);
    }

    /// Starts another process in the place of one, and returns the old one.
    fn start_another(&mut self, place: usize) -> Rc<Replica> {
        self.numbers += 1;
        let name = format!("r{place}.{}", self.numbers);
        let fresh = Rc::new(self.world.start(&name, self.schedule, place));
        let gone = std::mem::replace(&mut self.replicas[place], fresh);
        self.replicas[place].clock.set_wall_ahead(gone.clock.wall_ahead());
        gone
    }

    fn later(&mut self, replica: Option<Rc<Replica>>, lasting: Duration, later: Later) {
        let work = async move {
            tokio::time::sleep(lasting).await;
            Done::Later
        };
        self.add(replica, What::Later(later), work);
    }

    pub(super) fn add(
        &mut self,
        replica: Option<Rc<Replica>>,
        what: What,
        work: impl Future<Output = Done> + 'static,
    ) {
        self.numbers += 1;
        let number = self.numbers;
        self.tell(|| format!("  {number}: {what:?}"));
        self.pending.insert(number, Pending { replica, what, was_misled: false, work: Box::pin(work) });
    }
}
