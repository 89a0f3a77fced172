//! What is particular to the store in memory: handles that share it, and what goes wrong on the way.

use super::*;
use crate::store::memory::{Fault, Memory};

fn a_memory() -> Memory {
    let clock = Arc::new(RuntimeClock::default());
    Memory::new(clock, "store-1".parse().unwrap(), b"keyring".into())
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_the_contract() {
    contract::holds(async || a_memory().open("test").0).await;
}

#[tokio::test(start_paused = true)]
async fn handles_share_the_rows_and_each_has_its_own_faults() {
    let memory = a_memory();
    let ((one, line), (other, _)) = (memory.open("one"), memory.open("other"));
    assert_eq!(one.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    let lease = Duration::from_mins(1);
    assert!(matches!(one.claim(&key(), lease).await, Ok(Claim::Won(_))));
    assert!(matches!(other.claim(&key(), lease).await, Ok(Claim::Leased { .. })));

    line.set(Fault::Unreachable);
    assert!(one.commit(write(Some(1), 2, b"never")).await.is_err());
    assert_eq!(other.connection(&key()).await.unwrap().row.unwrap().generation, Generation(1));

    line.heal();
    line.next(Fault::AnswerLost);
    assert!(one.commit(write(Some(1), 2, b"written")).await.is_err());
    assert_eq!(other.connection(&key()).await.unwrap().row.unwrap().sealed, b"written");
    assert_eq!(one.commit(write(Some(1), 2, b"written")).await.unwrap(), Cas::Won, "repeated");
}

#[tokio::test(start_paused = true)]
async fn what_one_handle_writes_is_news_to_another_unless_its_line_keeps_it() {
    let memory = a_memory();
    let ((one, _), (other, line)) = (memory.open("one"), memory.open("other"));
    let mut news = other.news();
    assert_eq!(news.next().await, News::StoreReturned, "what was before is to be compared");

    assert_eq!(one.commit(write(None, 1, b"sealed")).await.unwrap(), Cas::Won);
    assert_eq!(news.next().await, News::Connection(key(), Generation(1)));

    let began = tokio::time::Instant::now();
    line.delay_news(Duration::from_secs(3));
    assert_eq!(one.commit(write(Some(1), 2, b"sealed")).await.unwrap(), Cas::Won);
    assert_eq!(news.next().await, News::Connection(key(), Generation(2)));
    assert_eq!(began.elapsed(), Duration::from_secs(3));

    line.drop_news();
    assert_eq!(one.commit(write(Some(2), 3, b"sealed")).await.unwrap(), Cas::Won);
    assert_eq!(news.next().await, News::Anything, "the comparison that comes anyway");
    line.set(Fault::Unreachable);
    assert_eq!(news.next().await, News::Anything, "a line that was cut may have missed something");
}

#[tokio::test(start_paused = true)]
async fn a_paused_line_keeps_questions_and_answers() {
    let memory = a_memory();
    let (store, line) = memory.open("one");
    line.set_delays([Duration::from_secs(1), Duration::from_secs(2)]);
    let began = tokio::time::Instant::now();
    let asking = tokio::spawn(async move { store.commit(write(None, 1, b"sealed")).await });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(memory.row(&key()).is_some(), "done on the way");
    line.set_paused(true);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!asking.is_finished());
    line.set_paused(false);
    assert_eq!(asking.await.unwrap().unwrap(), Cas::Won);
    assert!(Duration::from_mins(1) < began.elapsed());
}
