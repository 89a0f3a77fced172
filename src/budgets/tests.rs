//! Turns, storms and silences, on paused time.

use super::*;
use crate::testing::RuntimeClock;

fn budget(overall: u32, per_tenant: u32) -> (TokenBudget, Arc<RuntimeClock>) {
    let clock = Arc::new(RuntimeClock::default());
    let rates =
        TokenRates { overall: overall.try_into().unwrap(), per_tenant: per_tenant.try_into().unwrap() };
    (TokenBudget::new(rates, clock.clone()), clock)
}

fn tenant(digit: char) -> TenantId {
    "00000000-0000-4000-a000-000000000000".replace('0', &digit.to_string()).parse().unwrap()
}

/// And sends a request.
async fn ask(
    budget: &TokenBudget,
    tenant: &TenantId,
    urgency: Urgency,
    within: Duration,
) -> Result<(), Duration> {
    budget.turn(tenant, &watch::channel(urgency).1, within).await.map(Turn::spend)
}

const LONG: Duration = Duration::from_hours(1);

/// F21: whoever comes, no more are let through than the rate says, and hardly fewer.
#[tokio::test(start_paused = true)]
async fn f21_a_storm_is_let_through_at_the_rate() {
    let (budget, clock) = budget(100, 50);
    let (one, other, third) = (tenant('1'), tenant('2'), tenant('3'));
    let turns = |count: usize, tenant| {
        let budget = &budget;
        async move {
            for _ in 0..count {
                ask(budget, tenant, Urgency::Due, LONG).await.unwrap();
            }
        }
    };
    tokio::join!(turns(1000, &one), turns(1000, &other), turns(1000, &third));
    let took = clock.now().monotonic.as_secs_f64();
    assert!((29.0..33.0).contains(&took), "3000 at 100/s took {took} s");
    turns(500, &one).await;
    let more = clock.now().monotonic.as_secs_f64() - took;
    assert!((9.0..11.0).contains(&more), "500 of one tenant at 50/s took {more} s");
}

#[tokio::test(start_paused = true)]
async fn who_is_waited_for_goes_before_what_is_due() {
    let (budget, _clock) = budget(1, 1);
    let tenant = tenant('1');
    ask(&budget, &tenant, Urgency::Due, LONG).await.unwrap();
    let order = Mutex::new(Vec::new());
    let ask = |name, urgency| {
        let (budget, order, tenant) = (&budget, &order, &tenant);
        async move {
            ask(budget, tenant, urgency, LONG).await.unwrap();
            order.lock().unwrap().push(name);
        }
    };
    tokio::join!(
        ask("demanded", Urgency::Demanded),
        ask("demanded", Urgency::Demanded),
        ask("due", Urgency::Due),
    );
    assert_eq!(*order.lock().unwrap(), ["demanded", "demanded", "due"]);
}

/// One tenant's storm is its own.
#[tokio::test(start_paused = true)]
async fn f21_whoever_is_waited_for_holds_up_nothing_of_other_tenants() {
    let (budget, clock) = budget(100, 1);
    let (one, other) = (tenant('1'), tenant('2'));
    let storm = async { while ask(&budget, &one, Urgency::Demanded, LONG).await.is_ok() {} };
    let due = async {
        for _ in 0..10 {
            ask(&budget, &other, Urgency::Due, LONG).await.unwrap();
        }
    };
    tokio::select! {
        () = storm => {}
        () = due => {}
    }
    assert_eq!(clock.now().monotonic, Duration::from_secs(9), "at the tenant's own pace");
}

/// Where all wait for the pace over all, whoever is waited for does not stand behind what is due of others.
#[tokio::test(start_paused = true)]
async fn f21_who_is_waited_for_goes_before_what_is_due_of_all_tenants() {
    let (budget, clock) = budget(10, 10);
    let budget = Arc::new(budget);
    for digit in '1'..='5' {
        for _ in 0..100 {
            let budget = budget.clone();
            tokio::spawn(async move { ask(&budget, &tenant(digit), Urgency::Due, LONG).await });
        }
    }
    for _ in 0..10 {
        clock.sleep(Duration::from_millis(950)).await;
        let asked = clock.now().monotonic;
        ask(&budget, &tenant('9'), Urgency::Demanded, LONG).await.unwrap();
        let waited = clock.now().monotonic - asked;
        assert!(waited <= Duration::from_millis(101), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_of_a_tenant_is_not_used_up_where_all_must_wait() {
    let (budget, clock) = budget(10, 1);
    ask(&budget, &tenant('1'), Urgency::Demanded, LONG).await.unwrap();
    let (asked, moment) = (tenant('2'), Duration::from_millis(100));
    assert_eq!(ask(&budget, &asked, Urgency::Demanded, moment / 2).await, Err(moment));
    clock.sleep(moment).await;
    assert_eq!(ask(&budget, &asked, Urgency::Demanded, Duration::ZERO).await, Ok(()));
    clock.sleep(moment).await;
    let early = ask(&budget, &asked, Urgency::Demanded, Duration::ZERO).await;
    assert!(early.is_err(), "one turn was given back, not two");
}

/// P6: what was merely due is demanded once somebody joins it, and waits no longer for those who are.
#[tokio::test(start_paused = true)]
async fn what_stands_back_goes_on_once_somebody_waits_for_it() {
    let (budget, clock) = budget(100, 1);
    let tenant = tenant('1');
    ask(&budget, &tenant, Urgency::Demanded, LONG).await.unwrap();
    let (urgency, joined) = watch::channel(Urgency::Due);
    let storm = async { while ask(&budget, &tenant, Urgency::Demanded, LONG).await.is_ok() {} };
    let joining = async {
        clock.sleep(Duration::from_secs(10)).await;
        urgency.send_replace(Urgency::Demanded);
        clock.sleep(Duration::from_hours(1)).await;
    };
    tokio::select! {
        turn = budget.turn(&tenant, &joined, LONG) => turn.unwrap().spend(),
        () = storm => unreachable!("it never ends"),
        () = joining => panic!("it stood back for an hour"),
    }
}

/// P6: whoever was to find out and sent nothing keeps nobody waiting.
#[tokio::test(start_paused = true)]
async fn f10_a_question_that_was_not_asked_is_asked_by_the_next() {
    let (budget, clock) = budget(100, 100);
    let tenant = tenant('1');
    for _ in 0..SILENT_AFTER {
        budget.unanswered(&tenant, clock.now().monotonic);
    }
    clock.sleep(SILENCE.min * 2).await;
    let demanded = watch::channel(Urgency::Demanded).1;
    let turn = budget.turn(&tenant, &demanded, Duration::ZERO).await.unwrap();
    assert!(ask(&budget, &tenant, Urgency::Demanded, Duration::ZERO).await.is_err(), "one finds out");

    drop(turn);

    assert_eq!(ask(&budget, &tenant, Urgency::Demanded, Duration::ZERO).await, Ok(()));
}

/// P6: requests that one moment swallowed are one reason to be silent, and any answer ends it.
#[tokio::test(start_paused = true)]
async fn f10_a_burst_of_silence_is_one_and_ends_with_an_answer() {
    let (budget, clock) = budget(100, 100);
    let tenant = tenant('1');
    let ask = || ask(&budget, &tenant, Urgency::Demanded, Duration::ZERO);
    for _ in 0..32 {
        budget.unanswered(&tenant, clock.now().monotonic);
    }
    assert!(ask().await.is_err());
    clock.sleep(SILENCE.min * 2).await;
    assert_eq!(ask().await, Ok(()), "one finds out");
    budget.unanswered(&tenant, clock.now().monotonic);
    assert!(ask().await.is_err());
    budget.answered(&tenant);
    assert_eq!(ask().await, Ok(()), "something answered what was on its way");
}

/// Whoever has a turn of a tenant, and waits for one of all, does not ask a tenant that refused meanwhile.
#[tokio::test(start_paused = true)]
async fn f08_a_wish_holds_for_those_too_who_wait_for_the_pace_over_all() {
    let (budget, clock) = budget(1, 100);
    let (one, other) = (tenant('1'), tenant('2'));
    ask(&budget, &other, Urgency::Demanded, LONG).await.unwrap();
    let refused = async {
        clock.sleep(Duration::from_millis(100)).await;
        budget.pause(&one, Duration::from_mins(1));
    };
    let within = Duration::from_secs(3);
    let (asked, ()) = tokio::join!(ask(&budget, &one, Urgency::Demanded, within), refused);
    assert!(asked.is_err());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_they_can() {
    let (budget, clock) = budget(1, 1);
    let tenant = tenant('1');
    ask(&budget, &tenant, Urgency::Demanded, LONG).await.unwrap();
    let refused = ask(&budget, &tenant, Urgency::Demanded, Duration::from_millis(500)).await;
    assert_eq!((refused, clock.now().monotonic), (Err(Duration::from_secs(1)), Duration::ZERO));
}

/// F08: a tenant's wish holds for everybody, and for that tenant alone.
#[tokio::test(start_paused = true)]
async fn f08_a_tenant_that_asked_for_it_is_left_alone() {
    let (budget, clock) = budget(100, 100);
    let (one, other) = (tenant('1'), tenant('2'));
    budget.pause(&one, Duration::from_mins(1));
    budget.pause(&one, Duration::from_secs(1));
    let short = Duration::from_secs(30);
    assert_eq!(ask(&budget, &one, Urgency::Demanded, short).await, Err(Duration::from_mins(1)));
    assert_eq!(ask(&budget, &other, Urgency::Demanded, LONG).await, Ok(()));
    clock.sleep(Duration::from_mins(1)).await;
    assert_eq!(ask(&budget, &one, Urgency::Demanded, LONG).await, Ok(()));
    budget.pause(&one, Duration::from_secs(1_000_000_000));
    assert_eq!(ask(&budget, &one, Urgency::Due, short).await, Err(PAUSE_MAX));
    let began = clock.now().monotonic;
    assert_eq!(ask(&budget, &one, Urgency::Demanded, LONG).await, Ok(()));
    assert_eq!(clock.now().monotonic - began, PAUSE_MAX, "who can wait does");
}

/// P6: what was sent before a silence began tells nothing new when it ends, and does not put a second question
/// beside the one that finds out.
#[tokio::test(start_paused = true)]
async fn f10_a_request_that_ends_late_prolongs_no_silence() {
    let (budget, clock) = budget(100, 100);
    let tenant = tenant('1');
    let sent = clock.now().monotonic;
    for _ in 0..SILENT_AFTER {
        budget.unanswered(&tenant, sent);
    }
    clock.sleep(SILENCE.min * 2).await;
    let demanded = watch::channel(Urgency::Demanded).1;
    let asks = budget.turn(&tenant, &demanded, Duration::ZERO).await.unwrap();

    budget.unanswered(&tenant, sent);

    assert!(ask(&budget, &tenant, Urgency::Demanded, Duration::ZERO).await.is_err(), "one finds out");
    drop(asks);
    assert_eq!(ask(&budget, &tenant, Urgency::Demanded, Duration::ZERO).await, Ok(()), "the next one does");
}

/// F21: a process that was stopped for hours has saved up no more turns than a moment's.
#[tokio::test(start_paused = true)]
async fn f21_a_long_pause_saves_up_no_turns() {
    let (budget, clock) = budget(100, 50);
    clock.sleep(Duration::from_hours(10)).await;
    let mut had = 0;
    while ask(&budget, &tenant('1'), Urgency::Demanded, Duration::ZERO).await.is_ok() {
        had += 1;
    }
    assert_eq!(had, 50 / 10);
}
