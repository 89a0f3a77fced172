//! `WatchConnections`: the present, then what happens, in order, on from a cursor.

use std::time::Duration;

use azdo_broker::pb::{self, ConnectionEventKind as Kind};
use azure_emulator::{Change, Fault};
use tonic::{Code, Status, Streaming};

use crate::import::{grant_from_elsewhere, import, item};
use crate::strict_rotation::strict;
use crate::support::{
    CLIENT_ID, Client, IDE_BACKEND, PATIENCE, Replicas, TestApp, assert_refused, developer, service_user,
};

const PAST_EXPIRY: Duration = Duration::from_hours(2);

pub(crate) struct Watcher {
    stream: Streaming<pb::WatchConnectionsResponse>,
    /// The last one seen.
    pub(crate) cursor: String,
}

impl Watcher {
    pub(crate) async fn on(client: &Client, account: &str, cursor: &str) -> Result<Self, Status> {
        let request = pb::WatchConnectionsRequest { account_id: account.into(), cursor: cursor.into() };
        let stream = client.connections().watch_connections(request).await?.into_inner();
        Ok(Self { stream, cursor: cursor.to_owned() })
    }

    /// One that has been told all that is present, and what that was.
    pub(crate) async fn synced(client: &Client, account: &str) -> (Self, Vec<pb::Connection>) {
        let mut watcher = Self::on(client, account, "").await.unwrap();
        let mut present = Vec::new();
        loop {
            let told = watcher.next().await.unwrap();
            match told.kind() {
                Kind::Present => present.push(told.connection.unwrap()),
                Kind::Synced => return (watcher, present),
                other => panic!("{other:?} before everything present was told"),
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Result<pb::WatchConnectionsResponse, Status> {
        let told = tokio::time::timeout(PATIENCE, self.stream.message()).await.expect("is told or ended")?;
        let told = told.expect("a watch ends by a status");
        assert_eq!(told.cursor.is_empty(), told.kind() == Kind::Present);
        self.cursor.clone_from(&told.cursor);
        Ok(told)
    }

    /// The next piece of news: younger cursors of quiet hours are none.
    pub(crate) async fn news(&mut self) -> (Kind, pb::Connection) {
        loop {
            let told = self.next().await.unwrap();
            if told.kind() != Kind::Synced {
                return (told.kind(), told.connection.unwrap());
            }
        }
    }

    /// What is told when nobody wakes the watch.
    pub(crate) async fn news_as_time_passes(
        &mut self,
        app: &TestApp,
        step: Duration,
    ) -> (Kind, pb::Connection) {
        let told = async {
            let mut looks = tokio::time::interval(Duration::from_millis(100));
            loop {
                tokio::select! {
                    biased;
                    news = self.news() => return news,
                    _ = looks.tick() => app.advance(step),
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap()
    }

    async fn kinds(&mut self, count: usize) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for _ in 0..count {
            kinds.push(self.news().await.0);
        }
        kinds
    }

    /// How it ends, whatever is told before.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

/// As every other answer about a connection.
#[tokio::test]
async fn a_watch_warns_of_a_grant_that_expires_until_it_needs_to_be_linked_anew() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let warns = |connection: &pb::Connection| {
        connection.warnings.iter().any(|warning| warning.code == "GRANT_EXPIRES")
    };
    app.fault(Fault::EntraOutage { status: Some(503), retry_after: None, count: None });
    app.advance(Duration::from_hours(24 * 62));

    let (mut watcher, present) = Watcher::synced(&operator, "acme").await;
    assert!(warns(&present[0]), "{present:?}");
    let (kind, failing) = watcher.news_as_time_passes(&app, Duration::from_secs(1)).await;
    assert!(kind == Kind::Failing && warns(&failing), "{failing:?}");

    app.emulator.clear_faults();
    app.fault(Fault::UserRevoke { upn: "svc@contoso.com".into() });
    let (kind, revoked) = watcher.news_as_time_passes(&app, Duration::from_secs(1)).await;
    assert!(kind == Kind::NeedsRelink && !warns(&revoked), "{revoked:?}");
}

#[tokio::test]
async fn a_watch_tells_the_present_and_then_everything_in_order() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let (mut watcher, present) = Watcher::synced(&operator, "acme").await;
    assert_eq!(present, []);

    app.link("svc@contoso.com").await;
    let (kind, connection) = watcher.news().await;
    assert_eq!(
        (kind, connection.identity.as_ref().unwrap().login.as_str()),
        (Kind::Connected, "svc@contoso.com")
    );

    app.advance(PAST_EXPIRY);
    operator.token().await.unwrap();
    let (kind, refreshed) = watcher.news().await;
    assert_eq!(kind, Kind::Refreshed);
    assert!(connection.generation < refreshed.generation);

    app.advance(PAST_EXPIRY);
    app.fault(Fault::next_error(50_196));
    operator.token().await.unwrap_err();
    let (kind, failing) = watcher.news().await;
    assert_eq!((kind, failing.state()), (Kind::Failing, pb::ConnectionState::Failing));
    assert_eq!(failing.failure.unwrap().reason, "UPSTREAM_THROTTLED");

    app.advance(Duration::from_mins(10));
    operator.token().await.unwrap();
    let (kind, recovered) = watcher.news().await;
    assert_eq!((kind, recovered.state()), (Kind::Recovered, pb::ConnectionState::Connected));

    app.advance(PAST_EXPIRY);
    app.fault(Fault::UserRevoke { upn: "svc@contoso.com".into() });
    operator.token().await.unwrap_err();
    let (kind, revoked) = watcher.news().await;
    assert_eq!((kind, revoked.state()), (Kind::NeedsRelink, pb::ConnectionState::NeedsRelink));

    app.link("svc@contoso.com").await;
    assert_eq!(watcher.news().await.0, Kind::Connected);
    operator.disconnect().await.unwrap();
    let (kind, ended) = watcher.news().await;
    assert_eq!((kind, ended.state()), (Kind::Disconnected, pb::ConnectionState::Disconnected));
    assert_eq!(ended, operator.connection().await.unwrap());

    let begun = app.files.audit().into_iter().filter(|line| line["act"] == "WatchConnections");
    assert_eq!(begun.map(|line| line["account"].clone()).collect::<Vec<_>>(), ["acme"]);
}

#[tokio::test]
async fn a_watch_begins_with_who_is_connected_and_leaves_out_who_is_not_any_more() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let grant = grant_from_elsewhere(&app, "ana@contoso.com").await;
    import(&operator, vec![item(developer("ana"), &grant)], false).await;
    operator.token_of_developer("ana").await.unwrap();
    operator.disconnect().await.unwrap();

    let (_, present) = Watcher::synced(&operator, "acme").await;

    assert_eq!(present, [operator.connection_of(developer("ana")).await.unwrap()]);
}

/// A failure that goes on is no news, and what is mended is told before anybody asks for a token.
#[tokio::test]
async fn a_rejected_secret_is_told_once_and_so_is_its_end() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let (mut watcher, _) = Watcher::synced(&operator, "acme").await;
    app.advance(PAST_EXPIRY);
    app.fault(Fault::SecretExpire { client_id: CLIENT_ID.into() });
    for _ in 0..3 {
        operator.token().await.unwrap_err();
        app.advance(Duration::from_mins(16));
    }
    app.change(Change::AddSecret { client_id: CLIENT_ID.into(), value: "new~secret.of+acme".into() });
    let renewed =
        pb::PutIntegrationRequest { client_secret: "new~secret.of+acme".into(), ..app.registration() };
    operator.put(renewed).await.unwrap();
    assert_eq!(watcher.kinds(2).await, [Kind::Failing, Kind::Recovered]);

    operator.token().await.unwrap();
    assert_eq!(watcher.news().await.0, Kind::Refreshed);
}

#[tokio::test]
async fn an_import_is_told_when_it_is_made_and_when_it_is_proven_or_ended() {
    let app = TestApp::start().await;
    let operator = app.operator().await;
    let (mut watcher, _) = Watcher::synced(&operator, "acme").await;
    let grant = grant_from_elsewhere(&app, "svc@contoso.com").await;
    import(&operator, vec![item(service_user(), &grant)], false).await;
    let (kind, imported) = watcher.news().await;
    assert_eq!((kind, imported.state()), (Kind::Connected, pb::ConnectionState::Imported));
    operator.token().await.unwrap();
    let (kind, proven) = watcher.news().await;
    assert_eq!((kind, proven.state()), (Kind::Connected, pb::ConnectionState::Connected));

    let foreign = grant_from_elsewhere(&app, "ana@contoso.com").await;
    let expected_object_id = proven.identity.unwrap().object_id;
    let ana = pb::ImportItem { expected_object_id, ..item(developer("ana"), &foreign) };
    import(&operator, vec![ana], false).await;
    operator.token_of_developer("ana").await.unwrap_err();
    assert_eq!(watcher.kinds(2).await, [Kind::Connected, Kind::Disconnected]);
}

/// P10: where each grant works once, whoever dies over a refresh takes the grant along and cannot say so.
#[tokio::test]
async fn a_loss_whose_holder_died_is_told_by_who_is_left() {
    let app = strict().await;
    let operator = app.operator().await;
    app.fault(Fault::EntraCut { count: Some(1) });
    operator.token().await.unwrap_err();
    app.edit_store(
        "UPDATE connections SET lease_holder = 'gone', lease_until = 1 WHERE role = ?1",
        "service_user",
    );
    let (mut watcher, _) = Watcher::synced(&operator, "acme").await;

    let (kind, lost) = watcher.news_as_time_passes(&app, Duration::from_mins(1)).await;

    assert_eq!((kind, lost.state()), (Kind::NeedsRelink, pb::ConnectionState::NeedsRelink));
}

/// At least once, and here exactly: what was told is not told again, what happened meanwhile is.
#[tokio::test]
async fn a_watch_goes_on_from_its_cursor() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let (mut watcher, _) = Watcher::synced(&operator, "acme").await;
    for _ in 0..2 {
        app.advance(PAST_EXPIRY);
        operator.token().await.unwrap();
    }
    let (_, first) = watcher.news().await;
    let cursor = watcher.cursor.clone();
    drop(watcher);
    operator.disconnect().await.unwrap();
    app.link("ana@contoso.com").await;

    let mut watcher = Watcher::on(&operator, "acme", &cursor).await.unwrap();

    assert_eq!(watcher.kinds(3).await, [Kind::Refreshed, Kind::Disconnected, Kind::Connected]);
    let mut again = Watcher::on(&operator, "acme", &cursor).await.unwrap();
    let mut before = first.generation;
    for _ in 0..3 {
        let (_, connection) = again.news().await;
        assert!(before <= connection.generation);
        before = connection.generation;
    }
    assert_eq!(before, operator.connection().await.unwrap().generation);
}

#[tokio::test]
async fn a_cursor_is_good_for_a_day_and_for_its_own_watch() {
    let app = TestApp::linked().await;
    let operator = app.operator().await;
    let (watcher, _) = Watcher::synced(&operator, "acme").await;
    let gone = async |account: &str, cursor: &str| {
        let mut watcher = match Watcher::on(&operator, account, cursor).await {
            Ok(watcher) => watcher,
            refused => return drop(assert_refused(refused.map(drop), Code::Aborted, "SNAPSHOT_GONE")),
        };
        assert_refused(watcher.next().await, Code::Aborted, "SNAPSHOT_GONE");
    };
    gone("globex", &watcher.cursor).await;
    gone("", &watcher.cursor).await;
    gone("acme", "not-a-cursor").await;
    app.advance(Duration::from_hours(23));
    let mut resumed = Watcher::on(&operator, "acme", &watcher.cursor).await.unwrap();
    assert_eq!(resumed.next().await.unwrap().kind(), Kind::Synced, "nothing happened: a younger cursor");
    app.advance(Duration::from_hours(2));
    gone("acme", &watcher.cursor).await;
    assert!(Watcher::on(&operator, "acme", &resumed.cursor).await.unwrap().next().await.is_ok());
}

/// P2: nobody is told of an account that policy does not show them.
#[tokio::test]
async fn a_watch_of_all_accounts_tells_of_those_that_policy_allows() {
    let app = TestApp::linked().await;
    let (operator, ide) = (app.operator().await, app.over_tls(IDE_BACKEND).await);
    operator.put(app.registration_of("globex")).await.unwrap();
    let (mut acme, _) = Watcher::synced(&operator, "acme").await;
    let (mut all, present) = Watcher::synced(&operator, "").await;
    let (mut allowed, _) = Watcher::synced(&ide, "").await;
    assert_eq!(present.len(), 1);
    assert_refused_silently(&ide, "globex").await;
    assert_refused_silently(&app.job_runner().await, "acme").await;
    assert_refused_silently(&app.job_runner().await, "").await;

    app.link_of("globex", "ana@contoso.com").await;
    operator.disconnect().await.unwrap();

    let accounts = [all.news().await.1.account_id, all.news().await.1.account_id];
    assert_eq!(accounts, ["globex", "acme"]);
    for watcher in [&mut acme, &mut allowed] {
        let (kind, connection) = watcher.news().await;
        assert_eq!((kind, connection.account_id.as_str()), (Kind::Disconnected, "acme"));
    }
}

async fn assert_refused_silently(client: &Client, account: &str) {
    let refused = Watcher::on(client, account, "").await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// A21, P9: a record that does not open is told as failing, and the watch goes on.
#[tokio::test]
async fn a21_a_damaged_connection_is_told_as_such() {
    let mut app = TestApp::linked().await;
    app.edit_store("UPDATE connections SET sealed = zeroblob(length(sealed)) WHERE account = ?1", "acme");
    app.restart().await;

    let (_, present) = Watcher::synced(&app.operator().await, "acme").await;

    assert_eq!(present[0].failure.as_ref().unwrap().reason, "RECORD_DAMAGED");
}

/// What is in the outbox is told even if whoever wrote it woke nobody.
#[tokio::test]
async fn a_wake_that_is_lost_only_delays() {
    let app = TestApp::linked().await;
    let (mut watcher, _) = Watcher::synced(&app.operator().await, "acme").await;
    let insert = "INSERT INTO outbox (account, role, generation, change, happened_at)
                  VALUES (?1, 'service_user', 1, 'refreshed', 1767225600000000)";
    app.edit_store(insert, "acme");

    let (kind, _) = watcher.news_as_time_passes(&app, Duration::from_secs(6)).await;

    assert_eq!(kind, Kind::Refreshed);
}

#[tokio::test]
async fn what_one_replica_does_a_watcher_at_another_is_told() {
    let replicas = Replicas::linked(2).await;
    let (one, other) = (replicas.operator(0).await, replicas.operator(1).await);
    let (mut watcher, present) = Watcher::synced(&other, "acme").await;
    assert_eq!(present.len(), 1);

    one.disconnect().await.unwrap();
    assert_eq!(watcher.news().await.0, Kind::Disconnected);
    replicas.first.link("ana@contoso.com").await;
    assert_eq!(watcher.news().await.0, Kind::Connected);

    // A cursor is good at every replica.
    one.disconnect().await.unwrap();
    let mut resumed = Watcher::on(&one, "acme", &watcher.cursor).await.unwrap();
    assert_eq!(resumed.news().await.0, Kind::Disconnected);
}
