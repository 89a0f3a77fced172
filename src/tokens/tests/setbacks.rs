//! What a refresh that brought nothing leaves behind: for callers, in the row, and for those who watch.

use prometheus_client::registry::Registry;

use super::*;

/// F08: whoever waits for their turn, because of others or of the tenant's wish, failed in nothing.
#[tokio::test(start_paused = true)]
async fn f08_a_connection_that_is_put_off_is_not_one_that_fails() {
    let (given, memory, _) = Given::over_memory(ON_DEMAND, 100, 100).await;
    given.import(1).await;
    let retry_after = Some(Duration::from_mins(2));
    given.entra.fail_next(EntraError { retry_after, ..EntraError::new(Verdict::Throttled) });
    assert_eq!(given.answer_of(&developer_key(1)).await, Err(Reason::UpstreamThrottled));

    assert_eq!(given.answer().await, Err(Reason::UpstreamThrottled));

    assert_eq!(given.entra.spent().len(), 1, "the tenant is left alone");
    let (mut registry, mut counted) = (Registry::default(), String::new());
    given.metrics.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut counted, &registry).unwrap();
    assert!(counted.contains("azdo_broker_refreshes_total{outcome=\"PutOff\"} 1"), "{counted}");
    let row = memory.row(&key()).unwrap();
    assert_eq!((row.failure, row.lease_until, row.retry_at), (None, None, None));
    let failing = memory.row(&developer_key(1)).unwrap().failure.unwrap();
    assert_eq!(failing.reason, Reason::UpstreamThrottled, "who asked and was refused");
    sleep(Duration::from_secs(121)).await;
    assert!(given.answer().await.is_ok(), "the tenant's time is over, and nobody waits longer");
}

/// P6, P10: who was there before failed, and whoever was linked meanwhile did not.
#[tokio::test(start_paused = true)]
async fn f11_a_verdict_that_came_too_late_is_not_told() {
    let (given, _memory, _) = Given::over_memory(ON_DEMAND, 100, 100).await;
    given.entra.fail_next(EntraError::new(Verdict::Relink { unmistakable: true }));
    let asked = given.refresh_in_flight().await;
    given.link("new").await;

    given.entra.release();

    assert!(asked.await.unwrap().is_ok());
    assert_eq!(given.answer().await, Ok("access-of-new-1".to_owned()));
    assert!(given.tokens.obstacle(&key()).is_none());
}

/// P6: a probe that told nothing of the credential keeps nobody from the next one for long.
#[tokio::test(start_paused = true)]
async fn f11_a_probe_without_a_verdict_is_made_again_soon() {
    let (given, _memory, _) = Given::over_memory(ON_DEMAND, 100, 100).await;
    given.entra.fail_next(EntraError::new(Verdict::ClientCredential));
    assert_eq!(given.answer().await, Err(Reason::ClientCredentialRejected));
    sleep(Duration::from_mins(11)).await;
    given.entra.fail_next(EntraError::new(Verdict::Transient));
    assert_eq!(given.answer().await, Err(Reason::UpstreamUnavailable));
    sleep(Duration::from_mins(1)).await;

    assert!(given.answer().await.is_ok());
}

/// P4, design.md 6.7: whatever else fails between two refusals of a grant, the second one is believed.
#[tokio::test(start_paused = true)]
async fn f11_what_fails_between_two_refusals_does_not_make_the_first_forgotten() {
    let refused = || EntraError::new(Verdict::Relink { unmistakable: false });
    let long = Some(Duration::from_mins(2));
    for between in [
        EntraError::new(Verdict::Transient),
        EntraError { retry_after: long, ..EntraError::new(Verdict::Throttled) },
        EntraError::new(Verdict::ClientCredential),
        EntraError::new(Verdict::Unknown),
    ] {
        let (given, memory, _) = Given::over_memory(ON_DEMAND, 100, 100).await;
        let which = format!("{between:?}");
        for error in [refused(), between, refused()] {
            given.entra.fail_next(error);
        }
        assert_eq!(given.answer().await, Err(Reason::UpstreamUnavailable), "{which}");
        sleep(Duration::from_mins(6)).await;
        assert!(given.answer().await.is_err(), "{which}");
        assert_eq!(given.entra.spent().len(), 2, "{which}");
        let reason = memory.row(&key()).unwrap().failure.unwrap().reason;
        assert_ne!(reason, Reason::RelinkRequired, "{which}: what stands in the way now is told");
        sleep(Duration::from_mins(20)).await;
        assert_eq!(given.answer().await, Err(Reason::RelinkRequired), "{which}");
        assert_eq!(given.entra.spent().len(), 3, "{which}");
    }
}

/// P4: a grant that came since the refusal was never refused, however unusable the answer was that brought it.
#[tokio::test(start_paused = true)]
async fn f11_a_refusal_of_the_grant_before_condemns_no_new_one() {
    let (given, memory, _) = Given::over_memory(ON_DEMAND, 100, 100).await;
    let refused = || EntraError::new(Verdict::Relink { unmistakable: false });
    let rescued = Some(RefreshToken::new("grant-of-old-7".to_owned()));
    for error in [refused(), EntraError { rescued, ..EntraError::new(Verdict::Unknown) }, refused()] {
        given.entra.fail_next(error);
    }
    for asked in 1..=3 {
        assert_eq!(given.answer().await, Err(Reason::UpstreamUnavailable));
        assert_eq!(given.entra.spent().len(), asked);
        sleep(Duration::from_mins(6)).await;
    }
    assert!(!memory.row(&key()).unwrap().failure.unwrap().needs_person);
    assert!(given.answer().await.is_ok());
}

/// The same where the tenant asked to be left alone meanwhile: its connections are put off.
#[tokio::test(start_paused = true)]
async fn f08_a_paced_tenant_does_not_make_a_refusal_forgotten() {
    let (given, memory, _) = Given::over_memory(ON_DEMAND, 100, 100).await;
    given.entra.fail_next(EntraError::new(Verdict::Relink { unmistakable: false }));
    assert_eq!(given.answer().await, Err(Reason::UpstreamUnavailable));
    let before = memory.row(&key()).unwrap().failure.unwrap();
    given.import(1).await;
    sleep(Duration::from_mins(4)).await;
    let retry_after = Some(Duration::from_mins(5));
    given.entra.fail_next(EntraError { retry_after, ..EntraError::new(Verdict::Throttled) });
    assert_eq!(given.answer_of(&developer_key(1)).await, Err(Reason::UpstreamThrottled));
    sleep(Duration::from_mins(2)).await;

    assert_eq!(given.answer().await, Err(Reason::UpstreamThrottled));

    assert_eq!(memory.row(&key()).unwrap().failure, Some(before));
    sleep(Duration::from_mins(6)).await;
    given.entra.fail_next(EntraError::new(Verdict::Relink { unmistakable: false }));
    assert_eq!(given.answer().await, Err(Reason::RelinkRequired));
}

/// F19: what a row says is said, and read, by the store's clock.
#[tokio::test(start_paused = true)]
async fn f19_a_wrong_clock_here_makes_no_wrong_times() {
    let store_clock = Arc::new(RuntimeClock::default());
    sleep(Duration::from_mins(5)).await;
    let (given, ..) = Given::over_memory_with(store_clock.clone(), ON_DEMAND, 100, 100).await;
    let began = store_clock.now().wall;
    let retry_after = Some(Duration::from_mins(2));
    given.entra.fail_next(EntraError { retry_after, ..EntraError::new(Verdict::Transient) });
    assert!(given.answer().await.is_err());
    sleep(Duration::from_mins(1)).await;

    let paused = given.ask().await.unwrap().unwrap_err();

    assert!(paused.retry_after.unwrap() <= Duration::from_mins(1), "{paused:?}");
    sleep(Duration::from_mins(2)).await;
    assert!(given.answer().await.is_ok());
    let Connection::Live(live) = given.row().await.connection else { panic!("is linked") };
    assert!(began < live.refreshed_at.unwrap());
}

/// P6: the refresh at half life comes although the store did not take the first word of the use.
#[tokio::test(start_paused = true)]
async fn f12_a_use_that_was_not_written_is_told_again() {
    let (given, memory, line) = Given::over_memory(ON_DEMAND, 100, 100).await;
    assert!(given.answer().await.is_ok());
    line.set(Fault::Unreachable);
    sleep(Duration::from_secs(1)).await;
    line.heal();
    let due_in = || memory.row(&key()).unwrap().refresh_at.unwrap().duration_since(given.clock.now().wall);
    assert!(jiff::SignedDuration::from_hours(24) < due_in(), "nothing was written");

    assert!(given.answer().await.is_ok());
    sleep(Duration::from_secs(1)).await;

    assert!(due_in() < jiff::SignedDuration::from_hours(1));
}

/// Another replica need not wait for leases that were taken too late to be used.
#[tokio::test(start_paused = true)]
async fn what_a_look_brings_after_the_stop_is_given_back() {
    let config = RefreshConfig { tick: Duration::from_secs(5), ..ON_DEMAND };
    let (mut given, memory, line) = Given::over_memory(config, 100, 100).await;
    given.import(1).await;
    line.set_delays([Duration::from_secs(1)]);
    sleep(Duration::from_millis(6500)).await;
    assert!(memory.row(&developer_key(1)).unwrap().lease_until.is_some(), "the look is on its way back");

    given.stop().await;

    let row = memory.row(&developer_key(1)).unwrap();
    assert_eq!((row.lease_until, row.failure), (None, None));
    assert!(given.entra.spent().is_empty());
}

/// P5: whoever joins the weekly refresh of a connection that nobody used gets its token.
#[tokio::test(start_paused = true)]
async fn whoever_joins_a_refresh_of_what_was_cold_costs_no_second_one() {
    // Whether there is room for another one or not.
    for concurrency in [4, 1] {
        let tick = Duration::from_mins(10);
        let given = Given::paced(RefreshConfig { concurrency, tick }, 100).await;
        given.entra.hold();
        // Paused time goes on to the day when it is due.
        given.entra.held().wait_for(|held| *held == 1).await.unwrap();
        let asked = given.ask();
        sleep(Duration::from_secs(1)).await;

        given.entra.release();

        assert!(asked.await.unwrap().is_ok());
        assert_eq!(given.entra.spent().len(), 1, "with room for {concurrency}");
    }
}

/// P6: a store that hangs over a commit keeps nobody from the token.
#[tokio::test(start_paused = true)]
async fn f02_a_commit_that_hangs_keeps_nobody_waiting_for_its_token() {
    let (given, memory, line) = Given::over_memory(ON_DEMAND, 100, 100).await;
    let before = memory.row(&key()).unwrap().generation;
    let asked = given.refresh_in_flight().await;
    line.set_paused(true);
    let began = given.clock.now().monotonic;

    given.entra.release();

    assert!(asked.await.unwrap().is_ok());
    assert!(given.clock.now().monotonic - began < Duration::from_secs(3));
    assert_eq!(memory.row(&key()).unwrap().generation, before, "it is not written yet");
    line.set_paused(false);
    sleep(Duration::from_secs(1)).await;
    assert!(before < memory.row(&key()).unwrap().generation);
}

/// P8: for a tenant that wants to be left alone the store is not written, however often somebody asks.
#[tokio::test(start_paused = true)]
async fn f08_who_is_left_alone_costs_the_store_no_writes() {
    let (given, memory, _) = Given::over_memory(ON_DEMAND, 100, 100).await;
    given.import(1).await;
    let retry_after = Some(Duration::from_mins(9));
    given.entra.fail_next(EntraError { retry_after, ..EntraError::new(Verdict::Throttled) });
    assert_eq!(given.answer_of(&developer_key(1)).await, Err(Reason::UpstreamThrottled));
    let before = memory.row(&key()).unwrap();

    for _ in 0..8 {
        assert_eq!(given.answer().await, Err(Reason::UpstreamThrottled));
        sleep(Duration::from_mins(1)).await;
    }

    assert_eq!(memory.row(&key()).unwrap(), before);
    sleep(Duration::from_mins(1)).await;
    assert!(given.answer().await.is_ok());
}
