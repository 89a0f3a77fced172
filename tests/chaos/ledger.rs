//! What was released to callers, to be held against the emulator's record and the audit.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::emulator::TokenRequest;
use crate::generations;
use crate::owners::{Belongs, Owners};
use crate::report::{Found, RELEASED};

/// One token that reached a caller.
#[derive(Clone, Debug)]
pub(crate) struct Released {
    /// Names the call; the audit has it as `purpose`.
    pub(crate) call: u64,
    pub(crate) connection: usize,
    pub(crate) sent: Timestamp,
    pub(crate) got: Timestamp,
    pub(crate) min_ttl: Duration,
    /// Computed here from the token itself.
    pub(crate) fingerprint: String,
    pub(crate) expires_at: Timestamp,
    /// Who the broker says it is.
    pub(crate) object_id: String,
}

#[derive(Default)]
pub(crate) struct Ledger {
    calls: AtomicU64,
    released: Mutex<Vec<Released>>,
    owners: Mutex<Owners>,
    lent: Mutex<HashSet<String>>,
}

#[derive(Deserialize)]
struct Line {
    purpose: Option<String>,
    generation: Option<i64>,
    outcome: LineOutcome,
}

#[derive(Deserialize)]
struct LineOutcome {
    result: String,
    fingerprint: Option<String>,
}

/// Records of one token released to one call.
struct Recorded {
    count: u64,
    generation: i64,
}

impl Ledger {
    pub(crate) fn begin(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn end(&self, released: Released) {
        self.all().push(released);
    }

    pub(crate) fn all(&self) -> std::sync::MutexGuard<'_, Vec<Released>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn owners(&self) -> std::sync::MutexGuard<'_, Owners> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This token was released before its grant was committed, because the store was spoiled: its records have the
    /// generation before its own.
    pub(crate) fn lends(&self, fingerprint: &str) {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner).insert(fingerprint.to_owned());
    }

    /// Compares all that was released with who issued it and with who recorded it.
    pub(crate) fn settle(&self, issued: &[TokenRequest], audits: &[PathBuf], found: &mut Found) {
        let (released, owners) = (self.all(), self.owners());
        found.count(RELEASED, released.len() as u64);
        let by_token: HashMap<&str, &TokenRequest> =
            issued.iter().filter_map(|it| Some((it.at_issued.as_deref()?, it))).collect();
        for it in released.iter() {
            found.compares("wrong_token", 1);
            match by_token.get(it.fingerprint.as_str()) {
                None => {
                    found.breaks("wrong_token", format!("call {} got a token that nobody issued", it.call));
                }
                Some(issued) => {
                    found.compares("released_after_disconnect", owners.has_ended_before(it).into());
                    judge(it, issued, &owners, found);
                }
            }
        }
        let recorded = read(audits, found);
        for it in released.iter() {
            found.compares("audit_gaps", 1);
            match recorded.get(&(it.call, it.fingerprint.clone())).map(|recorded| recorded.count) {
                Some(1) => {}
                other => found.breaks(
                    "audit_gaps",
                    format!("call {} was released a token with {} records", it.call, other.unwrap_or(0)),
                ),
            }
        }
        let all = released.iter().filter_map(|it| {
            let recorded = recorded.get(&(it.call, it.fingerprint.clone()))?;
            Some((it.connection, recorded.generation, *by_token.get(it.fingerprint.as_str())?))
        });
        let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        generations::look_for_lost_updates(all, &lent, issued, found);
    }
}

/// Of whoever was linked there then, not expired, and with the life that was asked for; by the emulator's word.
fn judge(it: &Released, issued: &TokenRequest, owners: &Owners, found: &mut Found) {
    let life = SignedDuration::from_secs(issued.expires_in.unwrap_or(0).cast_signed());
    // The emulator notes the time after it has signed, so the true expiry is a little earlier.
    let expiry = issued.time + life;
    let whose = issued.user_upn.as_deref().unwrap_or_default();
    let place = it.connection;
    match owners.judge(it, issued) {
        Belongs::Now => {}
        Belongs::NoMore => {
            let how =
                format!("call {} at {}: a token of {whose}, who had ended in u{place}", it.call, it.sent);
            found.breaks("released_after_disconnect", how);
        }
        Belongs::Never => {
            let how = format!("call {}: a token of {whose}, who was not linked in u{place}", it.call);
            found.breaks("wrong_token", how);
        }
    }
    found.compares("foreign_grants", 1);
    if issued.user_oid.as_deref() != Some(it.object_id.as_str()) {
        found.breaks("foreign_grants", format!("call {}: {whose}'s token as {}", it.call, it.object_id));
    }
    // The broker decided between the call and its answer: at the earliest when it was called.
    let asked = SignedDuration::try_from(it.min_ttl).unwrap_or_default();
    if expiry < it.got || expiry < it.sent + asked || expiry < it.expires_at {
        found.breaks(
            "wrong_token",
            format!(
                "call {} at {}: expires {expiry}, said {}, asked {asked}",
                it.call, it.sent, it.expires_at
            ),
        );
    }
}

fn read(audits: &[PathBuf], found: &mut Found) -> HashMap<(u64, String), Recorded> {
    let mut all: HashMap<(u64, String), Recorded> = HashMap::new();
    for audit in audits {
        let Ok(file) = File::open(audit) else {
            found.breaks("audit_gaps", format!("{} cannot be read", audit.display()));
            continue;
        };
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            // A line that a kill cut off is no record.
            let Ok(Line { purpose: Some(purpose), generation, outcome }) = serde_json::from_str(&line) else {
                continue;
            };
            let Some(call) = purpose.strip_prefix(CALL).and_then(|call| call.parse().ok()) else { continue };
            if let (Some(fingerprint), true) = (outcome.fingerprint, outcome.result == "released") {
                let new = Recorded { count: 0, generation: generation.unwrap_or(0) };
                all.entry((call, fingerprint)).or_insert(new).count += 1;
            }
        }
    }
    all
}

pub(crate) const CALL: &str = "call-";

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn request(n: usize, used: &str, token: &str) -> TokenRequest {
        TokenRequest {
            n,
            time: at(0),
            grant_type: "refresh_token".into(),
            outcome: Ok(()),
            user_oid: Some("oid".into()),
            user_upn: Some("u0".into()),
            rt_used: Some(used.into()),
            rt_issued: Some(format!("grant{n}")),
            at_issued: Some(token.into()),
            expires_in: Some(60),
        }
    }

    fn released(call: u64, token: &str) -> Released {
        Released {
            call,
            connection: 0,
            sent: at(1),
            got: at(2),
            min_ttl: Duration::from_secs(30),
            fingerprint: token.into(),
            expires_at: at(60),
            object_id: "oid".into(),
        }
    }

    fn line(call: u64, token: &str, generation: i64) -> String {
        format!(
            "{{\"purpose\":\"call-{call}\",\"generation\":{generation},\
             \"outcome\":{{\"result\":\"released\",\"fingerprint\":\"{token}\"}}}}\n"
        )
    }

    fn settle(released: Vec<Released>, issued: &[TokenRequest], audit: &str) -> Found {
        let ledger = Ledger::default();
        ledger.owners().linked(0, "u0".into(), at(0), at(0));
        settle_by(&ledger, released, issued, audit)
    }

    fn settle_by(ledger: &Ledger, released: Vec<Released>, issued: &[TokenRequest], audit: &str) -> Found {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        std::fs::write(&file, audit).unwrap();
        for it in released {
            ledger.end(it);
        }
        let mut found = Found::default();
        ledger.settle(issued, &[file], &mut found);
        found
    }

    /// What the check says of one token, of one user and issued at 10 s, that was asked for at `sent`.
    fn of_owners(ledger: &Ledger, upn: &str, sent: i64) -> Vec<&'static str> {
        let mine = TokenRequest { time: at(10), user_upn: Some(upn.into()), ..request(1, "grant0", "a") };
        let it = Released { sent: at(sent), got: at(sent + 1), min_ttl: Duration::ZERO, ..released(1, "a") };
        let found = settle_by(ledger, vec![it], &[mine], &line(1, "a", 5));
        found.broken.keys().copied().collect()
    }

    fn broken(found: &Found) -> Vec<&str> {
        found.broken.keys().copied().collect()
    }

    #[test]
    fn a_token_that_is_right_and_recorded_is_no_wrong() {
        let issued = [request(1, "grant0", "a"), request(2, "grant1", "b")];
        let all = vec![released(1, "a"), released(2, "b")];
        let found = settle(all, &issued, &(line(1, "a", 5) + &line(2, "b", 6)));
        assert!(found.broken.is_empty(), "{found:?}");
    }

    #[test]
    fn a_missing_record_and_one_too_many_are_gaps() {
        let issued = [request(1, "grant0", "a")];
        assert_eq!(broken(&settle(vec![released(1, "a")], &issued, "")), ["audit_gaps"]);
        let twice = line(1, "a", 5).repeat(2);
        assert_eq!(broken(&settle(vec![released(1, "a")], &issued, &twice)), ["audit_gaps"]);
        let cut = &line(1, "a", 5)[..40];
        assert_eq!(broken(&settle(vec![released(1, "a")], &issued, cut)), ["audit_gaps"]);
    }

    #[test]
    fn a_token_nobody_issued_or_of_another_or_too_short_is_wrong() {
        let record = line(1, "a", 5);
        let issued = [request(1, "grant0", "a")];
        let strange = settle(vec![released(1, "x")], &issued, &line(1, "x", 5));
        assert_eq!(broken(&strange), ["wrong_token"]);
        let others = TokenRequest { user_upn: Some("u1".into()), ..request(1, "grant0", "a") };
        assert_eq!(broken(&settle(vec![released(1, "a")], &[others], &record)), ["wrong_token"]);
        let short = Released { min_ttl: Duration::from_mins(1), ..released(1, "a") };
        assert_eq!(broken(&settle(vec![short], &issued, &record)), ["wrong_token"]);
        let expired = Released { sent: at(61), got: at(61), min_ttl: Duration::ZERO, ..released(1, "a") };
        assert_eq!(broken(&settle(vec![expired], &issued, &record)), ["wrong_token"]);
        let boasts = Released { expires_at: at(61), ..released(1, "a") };
        assert_eq!(broken(&settle(vec![boasts], &issued, &record)), ["wrong_token"]);
    }

    /// u0 until 20 s, nobody, then u1 from 30 s on.
    fn relinked() -> Ledger {
        let ledger = Ledger::default();
        ledger.owners().linked(0, "u0".into(), at(5), at(5));
        ledger.owners().ended(0, at(20));
        ledger.owners().linked(0, "u1".into(), at(30), at(31));
        ledger
    }

    #[test]
    fn a_token_of_whoever_was_linked_before_is_counted_once_the_end_is_in_force() {
        assert!(of_owners(&relinked(), "u0", 15).is_empty());
        assert!(of_owners(&relinked(), "u0", 21).is_empty());
        assert_eq!(of_owners(&relinked(), "u0", 22), ["released_after_disconnect"]);
        assert_eq!(of_owners(&relinked(), "u0", 40), ["released_after_disconnect"]);
    }

    #[test]
    fn a_token_of_somebody_who_is_not_linked_yet_or_never_was_is_wrong() {
        assert_eq!(of_owners(&relinked(), "u1", 40), ["wrong_token"]);
        assert_eq!(of_owners(&relinked(), "u2", 15), ["wrong_token"]);
        assert_eq!(of_owners(&Ledger::default(), "u0", 15), ["wrong_token"]);
    }

    #[test]
    fn whoever_returns_gets_no_token_of_the_time_before() {
        let ledger = relinked();
        ledger.owners().linked(0, "u0".into(), at(50), at(51));
        assert_eq!(of_owners(&ledger, "u0", 60), ["released_after_disconnect"]);
    }

    #[test]
    fn a_new_link_ends_the_one_before_even_if_nobody_disconnected() {
        let ledger = Ledger::default();
        ledger.owners().linked(0, "u0".into(), at(5), at(5));
        ledger.owners().linked(0, "u1".into(), at(30), at(31));
        assert!(of_owners(&ledger, "u0", 32).is_empty());
        assert_eq!(of_owners(&ledger, "u0", 33), ["released_after_disconnect"]);
    }

    #[test]
    fn one_identity_with_the_grant_of_another_is_foreign() {
        let named = Released { object_id: "other".into(), ..released(1, "a") };
        let found = settle(vec![named], &[request(1, "grant0", "a")], &line(1, "a", 5));
        assert_eq!(broken(&found), ["foreign_grants"]);
    }

    #[test]
    fn a_later_generation_from_an_older_grant_is_a_lost_update() {
        let issued = [request(1, "grant0", "a"), request(2, "grant1", "b"), request(3, "grant1", "c")];
        let all = vec![released(1, "a"), released(2, "b"), released(3, "c")];
        let audit = line(1, "a", 5) + &line(2, "b", 6) + &line(3, "c", 7);
        assert_eq!(broken(&settle(all, &issued, &audit)), ["lost_updates"]);
    }

    #[test]
    fn one_generation_of_two_grants_is_a_lost_update_unless_one_was_lent() {
        let issued = [request(1, "grant0", "a"), request(2, "grant1", "b")];
        let both = || vec![released(1, "a"), released(2, "b")];
        let audit = line(1, "a", 5) + &line(2, "b", 5);
        assert_eq!(broken(&settle(both(), &issued, &audit)), ["lost_updates"]);
        // Committed after it was lent.
        let and_again = [both(), vec![released(3, "b")]].concat();
        assert!(settle(and_again, &issued, &(audit.clone() + &line(3, "b", 6))).broken.is_empty());
        // Never committed, as a step knows that spoiled the store.
        let ledger = Ledger::default();
        ledger.owners().linked(0, "u0".into(), at(0), at(0));
        ledger.lends("b");
        assert!(settle_by(&ledger, both(), &issued, &audit).broken.is_empty());
    }
}
