//! Where each grant works once: what the row says while it is spent, and after it was not.

use super::*;
use crate::entra::Rotation;

async fn strict() -> (Given, Memory, MemoryLine) {
    let (given, memory, line) = Given::over_memory(ON_DEMAND, 100, 100).await;
    given.entra.set_rotation(Rotation::Strict);
    (given, memory, line)
}

fn is_lost(memory: &Memory) -> bool {
    memory.row(&key()).unwrap().failure.is_some_and(|failure| failure.lost)
}

/// P4: however long the store is away over it, the refusal is written where the row foresaw a loss.
#[tokio::test(start_paused = true)]
async fn f09_a_loss_that_did_not_come_is_taken_back_after_a_long_outage_of_the_store_too() {
    for verdict in [Verdict::Transient, Verdict::Throttled, Verdict::ClientCredential, Verdict::Admin] {
        let (given, memory, line) = strict().await;
        given.entra.fail_next(EntraError::new(verdict));
        let asked = given.refresh_in_flight().await;
        assert!(is_lost(&memory), "foreseen");
        line.set(Fault::Unreachable);
        given.entra.release();
        assert!(asked.await.unwrap().is_err());
        sleep(Duration::from_hours(3)).await;
        line.heal();
        sleep(Duration::from_mins(1)).await;
        assert!(!is_lost(&memory), "{verdict:?}");
        sleep(Duration::from_mins(20)).await;
        assert_eq!(given.answer().await, Ok("access-of-old-1".to_owned()), "{verdict:?}");
    }
}

/// P4: the client comes before the grant. A process that dies before the next credential was tried lost nothing.
#[tokio::test(start_paused = true)]
async fn f11_a_foreseen_loss_does_not_outlive_the_refusal_of_the_client() {
    let (given, memory, line) = strict().await;
    given.entra.fail_next(EntraError::new(Verdict::ClientCredential));
    let asked = given.refresh_in_flight().await;
    assert!(is_lost(&memory), "foreseen");
    line.set_delays([Duration::from_secs(1)]);
    given.entra.release();
    // There, and not yet back: the verdict on the credential is still to be written.
    sleep(Duration::from_millis(1500)).await;
    assert!(!asked.is_finished());
    given.crash().await;
    assert!(!is_lost(&memory));
}

/// P5: another replica could have the lease before Entra answers; so it is not asked, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn f13_nothing_is_asked_that_the_lease_may_not_outlast() {
    let now = Duration::ZERO;
    let slow = Duration::from_secs(3);
    // The row, the lease, the note: there and back.
    let (slow_lease, slow_note) = ([now, now, slow, slow], [now, now, now, now, slow, slow]);
    for delays in [&slow_lease[..], &slow_note[..]] {
        let (given, memory, line) = strict().await;
        given.accounts.integration(&key().account).await.unwrap();
        line.set_delays(delays.iter().copied());
        let problem = given.ask().await.unwrap().unwrap_err();
        assert!(problem.detail.contains("too long"), "{problem:?}");
        assert!(given.entra.spent().is_empty());
        let row = memory.row(&key()).unwrap();
        assert_eq!((row.failure, row.lease_until), (None, None));
        line.set_delays([]);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(given.answer().await, Ok("access-of-old-1".to_owned()));
    }
}
