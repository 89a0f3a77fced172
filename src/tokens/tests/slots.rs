//! What a process remembers of connections when there are more than it may remember.

use super::super::slot::{SLOTS_MAX, Slots, token_of};
use super::*;
use crate::vault::StoredToken;

/// P6, P8: what is in use stays at hand.
#[test]
fn at_the_limit_what_is_cold_is_forgotten_and_what_holds_nothing_first() {
    let now = RuntimeClock::began_at();
    let moment = crate::clock::Moment { wall: now, monotonic: Duration::ZERO };
    let store = StoreClock::new(now, moment, moment);
    let lifetime = Duration::from_hours(1);
    let expires_at = crate::clock::later(now, lifetime);
    let access = AccessToken::new("access".to_owned());
    let token = Some(StoredToken { access, expires_at, lifetime, scopes: Vec::new() });
    let live = Live { token, ..a_grant_of("old", now) };
    let slots = Slots::default();
    let holds_nothing = |number: usize| number.is_multiple_of(20);
    for number in 0..SLOTS_MAX {
        let slot = slots.slot(&developer_key(number));
        if !holds_nothing(number) {
            slot.learn(Generation(1), Stands::Since(live.linked_at), token_of(&live, Generation(1), &store));
        }
    }
    let waited_for = slots.slot(&developer_key(1000));
    for number in 0..1000 {
        slots.slot(&developer_key(number));
    }

    slots.slot(&developer_key(SLOTS_MAX));

    let is_kept = |number: usize| slots.find(&developer_key(number)).is_some();
    assert!((0..1000).all(|number| is_kept(number) != holds_nothing(number)), "the last ones asked for");
    assert!((10_000..SLOTS_MAX).all(|number| is_kept(number) != holds_nothing(number)), "the last ones made");
    assert!(is_kept(1000) && !is_kept(1001) && is_kept(SLOTS_MAX));
    assert_eq!(slots.keys().len(), SLOTS_MAX * 7 / 8 + 1);
    drop(waited_for);
}
