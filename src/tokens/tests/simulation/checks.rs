//! The promises, checked against what really happened.
//!
//! - **Rows**: a row never goes away, and its generation only grows. What a refresh commits came of the very
//!   grant that it replaces (P4); what a row holds is the grant, and the token, of the identity it names (P7).
//!   Nothing but a person's act changes or ends that. A verdict is of whoever had the last lease.
//! - **P5**: a grant is sent again only if the request before it was answered with an error, or if the lease of
//!   the one or of the other has run out: the answer may then be lost, or who sends it stood still meanwhile. Where
//!   each grant works once, it is never used again at all.
//! - **P6**: a caller is answered at once, and never with a problem, while its replica holds a token with the
//!   asked-for life.
//! - **P7**: a released token lives longer than asked, by Entra's own word; it is of the identity that the row
//!   names at its generation. Where a person's act was answered nothing older is released from then on, and
//!   elsewhere nothing older than a second, as far as the store can be reached and is quick.
//! - **P8**: nobody takes one lease again and again for nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::Token;
use super::entra::SimEntra;
use super::ledger::Event;
use crate::clock::{Moment, between, later};
use crate::connection::ConnectionKey;
use crate::ids::Generation;
use crate::store::memory::{Act, Written};
use crate::testing::RuntimeClock;
use crate::vault::{Connection, Vault};

/// A promise that was broken.
pub(super) type Violation = String;

pub(super) struct Checks {
    entra: SimEntra,
    vault: Arc<Vault>,
    /// What each row said, one after the other.
    history: BTreeMap<ConnectionKey, Vec<Entry>>,
    fences: BTreeMap<ConnectionKey, i64>,
    leases: BTreeMap<(Arc<str>, ConnectionKey), Lease>,
    /// When each connection was leased last, as often as is still sane within a second.
    leased_at: BTreeMap<ConnectionKey, VecDeque<Duration>>,
    requests: BTreeMap<u64, Request>,
    last_request: BTreeMap<String, u64>,
    /// Where a person's act was answered: nothing older is released there.
    floors: BTreeMap<(Arc<str>, ConnectionKey), Generation>,
    held: BTreeMap<(Arc<str>, ConnectionKey), Held>,
}

#[derive(Clone)]
pub(super) struct Entry {
    at: Duration,
    pub(super) generation: Generation,
    /// `None`: a tombstone.
    pub(super) family: Option<usize>,
    grant: Option<String>,
}

struct Lease {
    fence: i64,
    generation: Generation,
    /// By the truth, since the beginning.
    until: Duration,
}

struct Request {
    replica: Arc<str>,
    lease_until: Duration,
    /// Not until it is answered.
    ok: Option<bool>,
    /// Unless whoever asked was told that it did nothing.
    may_be_used: bool,
}

/// A token that a replica released, and therefore has.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) token: Arc<Token>,
    family: usize,
}

impl Checks {
    pub(super) fn new(entra: SimEntra, vault: Arc<Vault>) -> Self {
        Self {
            entra,
            vault,
            history: BTreeMap::new(),
            fences: BTreeMap::new(),
            leases: BTreeMap::new(),
            leased_at: BTreeMap::new(),
            requests: BTreeMap::new(),
            last_request: BTreeMap::new(),
            floors: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Reads rows, whatever happens to the lines of replicas.
    pub(super) fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// What the row says now.
    pub(super) fn standing(&self, key: &ConnectionKey) -> Option<&Entry> {
        self.history.get(key).and_then(|entries| entries.last())
    }

    pub(super) fn held(&self, replica: &Arc<str>, key: &ConnectionKey) -> Option<&Held> {
        self.held.get(&(replica.clone(), key.clone()))
    }

    pub(super) fn judge(&mut self, at: Duration, event: Event) -> Result<(), Violation> {
        match event {
            Event::Written(written) => self.judge_write(at, &written),
            Event::Asked { request, replica, grant } => self.judge_request(at, request, replica, grant),
            Event::Answered { request, ok, may_be_used } => {
                let asked = self.requests.get_mut(&request).expect("was asked");
                (asked.ok, asked.may_be_used) = (Some(ok), may_be_used);
                Ok(())
            }
            Event::SpentTwice => Err("P4: a grant that works once was used twice".to_owned()),
        }
    }

    fn judge_write(&mut self, at: Duration, written: &Written) -> Result<(), Violation> {
        let Written { act, holder, key, before, after } = written;
        let Some(after) = after else {
            return Err(format!("P4: the row of {key} is gone: {act:?} by {holder}"));
        };
        match act {
            Act::Claim => {
                let until = after.lease_until.expect("was just leased");
                let lease =
                    Lease { fence: after.fence, generation: after.generation, until: since_began(until) };
                self.fences.insert(key.clone(), after.fence);
                self.leases.insert((holder.clone(), key.clone()), lease);
                self.judge_pace(at, key)?;
            }
            Act::Verdict { fence, generation } => {
                if before.as_ref().map(|row| (row.fence, row.generation)) != Some((*fence, *generation)) {
                    return Err(format!("P4: {holder} condemned {key} under a lease that is another's"));
                }
            }
            // Nothing is old enough to be erased: a row that is gone was found above.
            Act::ClearPause | Act::Erase | Act::Pull | Act::Release => {}
            Act::Commit | Act::Connect | Act::Disconnect => return self.judge_row(at, written),
        }
        Ok(())
    }

    fn judge_pace(&mut self, at: Duration, key: &ConnectionKey) -> Result<(), Violation> {
        let leased_at = self.leased_at.entry(key.clone()).or_default();
        leased_at.push_back(at);
        if leased_at.len() <= LEASES_A_SECOND_MAX {
            return Ok(());
        }
        let first = leased_at.pop_front().expect("there are more");
        if at.saturating_sub(first) < Duration::from_secs(1) {
            return Err(format!("P8: {key} is leased again and again, and nothing comes of it"));
        }
        Ok(())
    }

    fn judge_row(&mut self, at: Duration, written: &Written) -> Result<(), Violation> {
        let Written { act, holder, key, before, after } = written;
        let after = after.clone().expect("was looked at");
        let said = |what: &str| format!("{what}: {act:?} of {key} by {holder}");
        let generation = after.generation;
        let before = before.as_ref().map(|row| row.generation);
        if Some(generation) <= before || before != self.standing(key).map(|entry| entry.generation) {
            return Err(said("P4: an older generation overwrote a newer one"));
        }
        let opened = self.vault.open_for_tests(after).map_err(|_| said("P9: the row does not open"))?;
        let entry = match opened.connection {
            Connection::Imported(_) => return Err(said("nothing was imported")),
            Connection::Ended(_) if *act == Act::Disconnect => {
                Entry { at, generation, family: None, grant: None }
            }
            Connection::Ended(_) => return Err(said("P4: ended by nobody")),
            Connection::Live(live) => {
                let hash = live.grant.as_ref().expect("people have grants").hash();
                let grant = self.entra.grant(&hash).ok_or_else(|| said("P7: a grant of nobody"))?;
                let family = self.entra.family(grant.family);
                if family.key != *key || !family.identity.is_same_as(&live.identity) {
                    return Err(said("P7: the row holds the grant of another identity"));
                }
                if let Some(token) = &live.token {
                    let issued = self.entra.token(&token.access.fingerprint());
                    let issued = issued.ok_or_else(|| said("P7: a token of nobody"))?;
                    if issued.family != grant.family {
                        return Err(said("P7: the row holds the token of another identity"));
                    }
                    if issued.expires_at < since_began(token.expires_at) {
                        return Err(said("P7: the row says that its token lives longer than it does"));
                    }
                }
                if *act == Act::Commit {
                    let standing = self.standing(key).ok_or_else(|| said("P4: a refresh of nothing"))?;
                    let is_next = standing.grant == grant.parent || standing.grant.as_ref() == Some(&hash);
                    if standing.family != Some(grant.family) || !is_next {
                        return Err(said("P4: a refresh replaced a grant that it did not spend"));
                    }
                }
                Entry { at, generation, family: Some(grant.family), grant: Some(hash) }
            }
        };
        self.history.entry(key.clone()).or_default().push(entry);
        Ok(())
    }

    fn judge_request(
        &mut self,
        at: Duration,
        request: u64,
        replica: Arc<str>,
        grant: String,
    ) -> Result<(), Violation> {
        let family = self.entra.grant(&grant).ok_or("P7: a grant of nobody was sent")?.family;
        let key = self.entra.family(family).key;
        let lease = self.leases.get(&(replica.clone(), key.clone()));
        let lease = lease.ok_or_else(|| format!("P5: {replica} refreshes {key} without a lease"))?;
        let lease_until = lease.until;
        // Whoever writes the row, as people do, ends the lease with the generation.
        let is_of_the_row = self.standing(&key).is_some_and(|entry| entry.generation == lease.generation);
        if at < lease_until && is_of_the_row && self.fences.get(&key) != Some(&lease.fence) {
            return Err(format!("P5: somebody else leased {key} while {replica} has the lease"));
        }
        if let Some(before) = self.last_request.insert(grant, request) {
            let before = &self.requests[&before];
            if before.ok != Some(false) && at < before.lease_until.min(lease_until) {
                let first = &before.replica;
                return Err(format!("P5: {replica} sent the grant of {key} again, which {first} had sent"));
            }
        }
        self.requests.insert(request, Request { replica, lease_until, ok: None, may_be_used: true });
        Ok(())
    }

    /// Whether the grant that stands there may be used up, for all that anybody was told.
    pub(super) fn may_be_used(&self, entry: &Entry) -> bool {
        let last = entry.grant.as_ref().and_then(|grant| self.last_request.get(grant));
        last.is_some_and(|request| self.requests[request].may_be_used)
    }

    /// Whether any request of this connection is on its way.
    pub(super) fn is_refreshing(&self) -> bool {
        self.requests.values().any(|request| request.ok.is_none())
    }

    /// A person's act on this replica was answered: it knows of this generation.
    pub(super) fn answered(&mut self, replica: &Arc<str>, key: &ConnectionKey, generation: Generation) {
        let floor = self.floors.entry((replica.clone(), key.clone())).or_default();
        *floor = generation.max(*floor);
    }

    /// Whether this replica has a token that lasts, as far as it can know.
    pub(super) fn is_at_hand(
        &self,
        replica: &Arc<str>,
        key: &ConnectionKey,
        min_ttl: Duration,
        now: Moment,
    ) -> bool {
        let family = self.standing(key).and_then(|entry| entry.family);
        let held = self.held(replica, key);
        held.is_some_and(|held| Some(held.family) == family && min_ttl < held.token.validity.left(now))
    }

    pub(super) fn released(
        &mut self,
        at: Duration,
        (replica, knows_since): (&Arc<str>, Option<Duration>),
        (key, min_ttl): (&ConnectionKey, Duration),
        token: &Arc<Token>,
    ) -> Result<(), Violation> {
        let said = |what: &str| format!("P7: {replica} released {what} for {key}");
        let issued = self.entra.token(&token.fingerprint).ok_or_else(|| said("a token of nobody"))?;
        let family = self.entra.family(issued.family);
        if issued.expires_at <= at + min_ttl {
            let left = issued.expires_at.saturating_sub(at);
            return Err(said(&format!("a token with {left:?} left, where {min_ttl:?} were asked")));
        }
        if family.key != *key || !family.identity.is_same_as(&token.identity) {
            return Err(said("a token of another identity"));
        }
        let entries = self.history.get(key).map(Vec::as_slice).unwrap_or_default();
        let entry = entries.iter().find(|entry| entry.generation == token.generation);
        if entry.and_then(|entry| entry.family) != Some(issued.family) {
            return Err(said("a token that its generation does not name"));
        }
        let is_past = |entry: &&Entry| knows_since.is_some_and(|since| entry.at <= since);
        let mut known = entries.iter().filter(is_past);
        if known.any(|entry| token.generation < entry.generation && entry.family != Some(issued.family)) {
            return Err(said("a token of a connection that was ended more than a second ago"));
        }
        let place = (replica.clone(), key.clone());
        if self.floors.get(&place).is_some_and(|floor| token.generation < *floor) {
            return Err(said("a token of a connection that was ended here"));
        }
        self.held.insert(place, Held { token: token.clone(), family: issued.family });
        Ok(())
    }
}

/// Each replica may look once while it is leased, and once more when it is not.
const LEASES_A_SECOND_MAX: usize = 20;

/// The store's time as time since the beginning.
fn since_began(time: jiff::Timestamp) -> Duration {
    between(RuntimeClock::began_at(), time)
}

/// The other way round.
pub(super) fn store_time(at: Duration) -> jiff::Timestamp {
    later(RuntimeClock::began_at(), at)
}
