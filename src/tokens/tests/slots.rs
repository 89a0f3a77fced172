//! What a process remembers of connections: of whom, and when there are more than it may remember.

use super::super::slot::{SLOTS_MAX, Slots, token_of};
use super::*;
use crate::vault::{Compared, StoredToken};

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
            slot.learn(Generation(1), Seen::link(Generation(1)), token_of(&live, Generation(1), &store));
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

/// P8: a row that is behind what is known is read once, and again when either changed.
#[test]
fn a_comparison_looks_at_a_row_once_until_something_changes() {
    let slot = Slots::default().slot(&key());
    let learn = |generation| slot.learn(Generation(generation), Seen::link(Generation(1)), None);
    let row = |generation| Compared { key: key(), generation: Generation(generation) };
    learn(5);

    slot.note_look(row(4));

    assert!(slot.was_looked_at(&row(4)));
    assert!(!slot.was_looked_at(&row(3)));
    learn(6);
    assert!(!slot.was_looked_at(&row(4)));
}

/// P9: what is younger and of somebody before is not learned.
#[test]
fn a_slot_learns_nothing_of_who_was_there_before() {
    let slot = Slots::default().slot(&key());
    slot.learn(Generation(5), Seen::end(Generation(5)), None);

    slot.learn(Generation(6), Seen::link(Generation(1)), None);

    assert_eq!(slot.known().generation, Generation(5));
    slot.learn(Generation(7), Seen::link(Generation(7)), None);
    slot.outdate(Seen::end(Generation(8)));
    slot.learn(Generation(9), Seen::link(Generation(7)), None);
    assert_eq!(slot.known().generation, Generation(7));
}

/// P9: what a row is of is told by people's acts, and not by refreshes.
#[tokio::test(start_paused = true)]
async fn a_refresh_keeps_since_when_somebody_stands_there_and_an_act_does_not() {
    let given = Given::a_linked_connection().await;
    let linked = given.row().await;
    assert_eq!(linked.since, linked.generation);
    assert!(given.answer().await.is_ok());
    let refreshed = given.row().await;
    assert!(linked.generation < refreshed.generation);
    assert_eq!(refreshed.since, linked.since);
    given.link("new").await;
    let relinked = given.row().await;
    assert_eq!(relinked.since, relinked.generation);
    given.disconnect().await;
    let ended = given.row().await;
    assert_eq!(ended.since, ended.generation);
}

/// P6: what failed before somebody asked is no answer to them, whatever else ended since.
#[test]
fn an_old_problem_is_told_to_nobody_who_waits() {
    let slot = Slots::default().slot(&key());
    slot.fail(shutting_down(), Duration::ZERO);
    let seen = slot.attempts();
    let now = crate::clock::Moment { wall: RuntimeClock::began_at(), monotonic: Duration::ZERO };
    slot.settle();
    assert!(matches!(slot.answer_after(seen, Duration::ZERO, now), Answer::Ask));
    slot.fail(shutting_down(), Duration::ZERO);
    assert!(matches!(slot.answer_after(seen, Duration::ZERO, now), Answer::Problem(_)));
}
