//! Many at once, of one tenant or while nothing answers: whom that keeps waiting.

use super::*;

/// F21: thousands of another tenant's connections, due at once, are paced at its rate and hold up nobody else's.
#[tokio::test(start_paused = true)]
async fn f21_a_storm_of_one_tenant_delays_no_refresh_of_another() {
    let config = RefreshConfig { concurrency: 32, tick: Duration::from_secs(2) };
    let (given, ..) = Given::over_memory(config, 100, 20).await;
    given.entra.set_lifetime(Duration::from_secs(305));
    given.storm_of_another_tenant(3000).await;
    for _ in 0..10 {
        sleep(Duration::from_secs(6)).await;
        let (asked, before) = (given.clock.now().monotonic, given.entra.spent().len());
        assert!(given.answer().await.is_ok());
        assert!(given.clock.now().monotonic - asked < Duration::from_millis(100));
        assert!(before < given.entra.spent().len(), "it was refreshed for this");
    }
    let spent = given.entra.spent().len();
    assert!((1100..1400).contains(&spent), "at 20/s for a minute: {spent}");
}

/// P6, T33: nor does one that somebody waits for, each of them.
#[tokio::test(start_paused = true)]
async fn f21_a_demanded_storm_of_one_tenant_delays_no_refresh_of_another() {
    let config = RefreshConfig { concurrency: 32, tick: Duration::from_hours(24) };
    let (given, ..) = Given::over_memory(config, 100, 20).await;
    given.storm_of_another_tenant(1500).await;
    for number in 0..1500 {
        let (tokens, account) = (given.tokens.clone(), "storm".parse().unwrap());
        let allowed = Allowed::for_tests(Caller::Dns("test".into()), Permission::ReleaseServiceUser, account);
        let key = ConnectionKey { account: allowed.account().clone(), ..developer_key(number) };
        tokio::spawn(async move { tokens.token(&allowed, &key, Duration::ZERO).await });
    }
    sleep(Duration::from_secs(2)).await;
    let asked = given.clock.now().monotonic;

    assert!(given.answer().await.is_ok());

    assert!(given.clock.now().monotonic - asked < Duration::from_secs(1));
}

/// T33: not every connection waits for itself until nothing has answered, and all go on once something does.
#[tokio::test(start_paused = true)]
async fn f10_while_entra_answers_nothing_one_asks_for_all() {
    let config = RefreshConfig { concurrency: 32, tick: Duration::from_secs(2) };
    let (given, ..) = Given::over_memory(config, 100, 100).await;
    given.entra.set_silent(true);
    for developer in 0..200 {
        given.import(developer).await;
    }
    sleep(Duration::from_mins(1)).await;
    let first = given.entra.spent().len();
    sleep(Duration::from_mins(4)).await;
    let asked = given.entra.spent().len() - first;
    assert!((6..=24).contains(&asked), "{first}, and then {asked} within four minutes");
    let began = given.clock.now().monotonic;
    assert_eq!(given.answer().await, Err(Reason::UpstreamUnavailable));
    assert!(given.clock.now().monotonic - began <= Duration::from_secs(10));

    given.entra.set_silent(false);
    sleep(Duration::from_mins(1)).await;

    assert!(given.answer().await.is_ok());
    assert!(200 < given.entra.spent().len() - first - asked);
}

/// F21: the budget paces what is due in great number, not the tick, and no gap is left between two looks.
#[tokio::test(start_paused = true)]
async fn f21_what_is_due_in_great_number_is_spent_at_the_rate() {
    let config = RefreshConfig { concurrency: 32, tick: Duration::from_secs(2) };
    let given = Given::paced(config, 40).await;
    for developer in 0..400 {
        given.import(developer).await;
    }
    let began = given.clock.now().monotonic;
    while given.entra.spent().len() < 400 {
        sleep(Duration::from_millis(100)).await;
    }
    let took = (given.clock.now().monotonic - began).as_secs_f64();
    assert!(took < 12.5, "400 at 40/s, looked for within 2 s: {took} s");
}

/// P6: what is due of an account keeps none of its callers waiting while there is room.
#[tokio::test(start_paused = true)]
async fn f21_what_is_due_of_an_account_takes_no_room_from_who_asks() {
    let config = RefreshConfig { concurrency: 4, tick: Duration::from_secs(2) };
    let (given, ..) = Given::over_memory(config, 100, 100).await;
    given.entra.hold();
    for developer in 0..3 {
        given.import(developer).await;
    }
    given.entra.held().wait_for(|held| *held == 3).await.unwrap();

    let asked = given.ask();

    let mut held = given.entra.held();
    let is_sent = held.wait_for(|held| *held == 4);
    tokio::time::timeout(Duration::from_secs(1), is_sent).await.unwrap().unwrap();
    given.entra.release();
    assert!(asked.await.unwrap().is_ok());
}
