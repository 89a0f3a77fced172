//! What a refresh that brought nothing leaves behind: for callers, in the row, and for those who watch.

use super::*;

/// Nothing looks what is due, so that only who asks makes requests.
const CONFIG: RefreshConfig = RefreshConfig { concurrency: 4, tick: Duration::from_hours(24) };

/// F08: whoever waits for their turn, because of others or of the tenant's wish, failed in nothing.
#[tokio::test(start_paused = true)]
async fn f08_a_connection_that_is_put_off_is_not_one_that_fails() {
    let (given, memory, _) = Given::over_memory(CONFIG, 100, 100).await;
    given.import(1).await;
    let retry_after = Some(Duration::from_mins(2));
    given.entra.fail_next(EntraError { retry_after, ..EntraError::new(Verdict::Throttled) });
    assert_eq!(given.answer_of(&developer_key(1)).await, Err(Reason::UpstreamThrottled));

    assert_eq!(given.answer().await, Err(Reason::UpstreamThrottled));

    assert_eq!(given.entra.spent().len(), 1, "the tenant is left alone");
    let row = memory.row(&key()).unwrap();
    assert_eq!((row.failure, row.lease_until), (None, None));
    assert!(row.retry_at.is_some());
    let failing = memory.row(&developer_key(1)).unwrap().failure.unwrap();
    assert_eq!(failing.reason, Reason::UpstreamThrottled, "who asked and was refused");
    sleep(Duration::from_mins(4)).await;
    assert!(given.answer().await.is_ok());
}
