//! What is written into a row that went back, and when not.

use super::*;
use crate::connection::{Failure, Seen};
use crate::entra::Rotation;
use crate::ids::Generation;
use crate::vault::{Rollback, VaultError};

/// A linked connection, and the disconnect that its store lost.
async fn went_back() -> (Given, Memory, Rollback) {
    let (given, memory, _line) = Given::over_memory(ON_DEMAND, 100, 100).await;
    let found = memory.row(&key()).unwrap().generation;
    let seen = Seen::end(Generation(found.0 + 1_000_000));
    given.vault.note_seen(&key(), seen);
    (given, memory, Rollback { key: key(), found: Some(found), seen })
}

fn failure(memory: &Memory) -> Option<Failure> {
    memory.row(&key()).unwrap().failure
}

/// P9: other replicas hear of it by its new generation, and a refresh of the old one loses.
#[tokio::test(start_paused = true)]
async fn f06_a_row_that_went_back_is_told_once_and_as_the_next_generation() {
    let (given, memory, rollback) = went_back().await;

    given.vault.suspect(&key()).await.unwrap();

    let told = memory.row(&key()).unwrap();
    assert!(rollback.found < Some(told.generation));
    assert_eq!(told.failure.map(|failure| failure.reason), Some(Reason::RollbackSuspected));
    given.vault.suspect(&key()).await.unwrap();
    assert_eq!(memory.row(&key()).unwrap().generation, told.generation);
    assert!(matches!(given.vault.connection(&key()).await, Err(VaultError::RolledBack(_))));
}

/// P4, P5: whoever comes late with what was accepted, or linked anew, meanwhile leaves it alone.
#[tokio::test(start_paused = true)]
async fn f06_what_was_accepted_is_not_suspected_again() {
    let (given, memory, rollback) = went_back().await;
    given.vault.suspect(&key()).await.unwrap();
    given.vault.accept_restore(&rollback).await.unwrap();
    let accepted = memory.row(&key()).unwrap().generation;

    given.vault.suspect(&key()).await.unwrap();

    let row = memory.row(&key()).unwrap();
    assert_eq!((row.generation, row.failure), (accepted, None));
    assert_eq!(given.answer().await, Ok("access-of-old-1".to_owned()));
}

/// P4: where each grant works once, one that may be used up stays so through it all.
#[tokio::test(start_paused = true)]
async fn f06_a_grant_that_is_lost_is_lost_when_its_row_went_back_and_was_accepted() {
    let (given, memory, _line) = Given::over_memory(ON_DEMAND, 100, 100).await;
    given.entra.set_rotation(Rotation::Strict);
    let refreshing = given.refresh_in_flight().await;
    assert!(failure(&memory).is_some_and(|failure| failure.lost), "foreseen");
    given.crash().await;
    let found = memory.row(&key()).unwrap().generation;
    let seen = Seen::end(Generation(found.0 + 1_000_000));
    given.vault.note_seen(&key(), seen);

    given.vault.suspect(&key()).await.unwrap();
    assert!(failure(&memory).is_some_and(|failure| failure.lost));
    given.vault.accept_restore(&Rollback { key: key(), found: Some(found), seen }).await.unwrap();

    let row = memory.row(&key()).unwrap();
    assert!(row.failure.is_some_and(|failure| failure.lost && failure.needs_person));
    assert!(row.retry_at.is_some_and(|at| row.refresh_at < Some(at)), "it is not asked for");
    drop(refreshing);
}

/// P7: what was read of another one's disconnect holds for a refresh of ours that lands after it.
#[tokio::test(start_paused = true)]
async fn f06_an_answer_of_who_was_there_before_is_not_written_once_that_is_known() {
    let (given, memory, _line) = Given::over_memory(ON_DEMAND, 100, 100).await;
    let asked = given.refresh_in_flight().await;
    let before = memory.row(&key()).unwrap().generation;
    given.tokens.end(&key(), Generation(before.0 + 1_000_000));

    given.entra.release();

    assert!(asked.await.unwrap().is_err());
    assert_eq!(failure(&memory).map(|failure| failure.reason), Some(Reason::RollbackSuspected));
    assert!(given.answer().await.is_err());
}
