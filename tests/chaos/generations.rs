//! Lost updates: what the generations of released tokens tell of who wrote over whom.
//!
//! Which token was released and recorded with which generation, [`ledger`](crate::ledger) knows, and its tests plant
//! what is to be found here.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::emulator::TokenRequest;
use crate::report::Found;

/// A generation is one grant's; and what has a later one came from a grant that is no older than what the earlier
/// one brought. Otherwise somebody wrote one grant over another.
pub(crate) fn look_for_lost_updates<'a>(
    released: impl Iterator<Item = (usize, i64, &'a TokenRequest)>,
    lent: &HashSet<String>,
    issued: &[TokenRequest],
    found: &mut Found,
) {
    // Per connection and generation the requests whose tokens it had, in the order of the emulator's record.
    let mut all = BTreeMap::<(usize, i64), BTreeMap<usize, &TokenRequest>>::new();
    // Per token its last generation. One that was lent before it was committed has that of the one before, too.
    let mut last = HashMap::<usize, i64>::new();
    for (connection, generation, request) in released {
        all.entry((connection, generation)).or_default().insert(request.n, request);
        let last = last.entry(request.n).or_insert(generation);
        *last = generation.max(*last);
    }
    let is_lent = |it: &TokenRequest| it.at_issued.as_ref().is_some_and(|token| lent.contains(token));
    for ((connection, generation), requests) in &all {
        found.compares("lost_updates", 1);
        let own = requests.values().filter(|it| last[&it.n] == *generation && !is_lent(it)).count();
        if 1 < own {
            found.breaks("lost_updates", format!("u{connection}: {own} grants of generation {generation}"));
        }
    }
    let by_grant: HashMap<&str, usize> =
        issued.iter().filter_map(|it| Some((it.rt_issued.as_deref()?, it.n))).collect();
    let firsts: Vec<_> =
        all.iter().filter_map(|(key, requests)| Some((key, *requests.values().next()?))).collect();
    for pair in firsts.windows(2) {
        let [((before, was), earlier), ((after, is), later)] = pair else { continue };
        let used = later.rt_used.as_deref().and_then(|grant| by_grant.get(grant));
        // A code or a grant from outside, used again, has no place in the order.
        let is_same = before == after && earlier.user_oid == later.user_oid && earlier.n != later.n;
        if let (true, Some(used)) = (is_same, used) {
            found.compares("lost_updates", 1);
            if *used < earlier.n {
                found.breaks("lost_updates", format!("u{before}: {is} came from before {was}"));
            }
        }
    }
}
