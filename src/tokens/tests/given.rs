//! A broker's middle for tests: a real store, a fake Entra, paused time.

use super::*;
use crate::audit::Audit;
use crate::gate::Gate;
use crate::policy::Policy;

/// A broker's middle: store, vault, accounts, refresher; the service user of `acme` linked as `old`.
pub(crate) struct Given {
    pub(crate) entra: FakeEntra,
    pub(super) vault: Arc<Vault>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) tokens: Tokens,
    pub(super) metrics: Metrics,
    pub(crate) clock: Arc<RuntimeClock>,
    refresher: JoinHandle<()>,
    stop: CancellationToken,
    _running: DropGuard,
    _folder: Option<tempfile::TempDir>,
}

pub(crate) type Asked = JoinHandle<Result<Arc<Token>, Problem>>;

impl Given {
    pub(crate) async fn a_linked_connection() -> Self {
        Self::looking_every(Duration::from_secs(5)).await
    }

    pub(super) async fn looking_every(tick: Duration) -> Self {
        Self::paced(RefreshConfig { concurrency: 4, tick }, 100).await
    }

    /// With so many token requests a second.
    pub(super) async fn paced(config: RefreshConfig, rate: u32) -> Self {
        let rate = rate.try_into().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(RuntimeClock::default());
        let vault = make_vault(folder.path(), clock.clone()).await;
        let given = Self::over(vault, clock, config, TokenRates { overall: rate, per_tenant: rate }).await;
        Self { _folder: Some(folder), ..given }
    }

    /// Over a store in memory, by a line that may break, and with so many token requests a second.
    pub(super) async fn over_memory(
        config: RefreshConfig,
        overall: u32,
        per_tenant: u32,
    ) -> (Self, Memory, MemoryLine) {
        Self::over_memory_with(Arc::new(RuntimeClock::default()), config, overall, per_tenant).await
    }

    /// The same, where the store has another clock.
    pub(super) async fn over_memory_with(
        store_clock: Arc<RuntimeClock>,
        config: RefreshConfig,
        overall: u32,
        per_tenant: u32,
    ) -> (Self, Memory, MemoryLine) {
        let clock = Arc::new(RuntimeClock::default());
        let store_id: crate::ids::StoreId = "store".parse().unwrap();
        let memory = Memory::new(store_clock, store_id.clone(), Vec::new());
        let (store, line) = memory.open("tests");
        let vault = Vault::new(store, Sealer::new(store_id, Keyring::generate()), Duration::from_hours(48));
        let (overall, per_tenant) = (overall.try_into().unwrap(), per_tenant.try_into().unwrap());
        let given = Self::over(vault, clock, config, TokenRates { overall, per_tenant }).await;
        (given, memory, line)
    }

    async fn over(vault: Vault, clock: Arc<RuntimeClock>, config: RefreshConfig, rates: TokenRates) -> Self {
        let vault = Arc::new(vault);
        let entra = FakeEntra::default();
        let accounts = Arc::new(Accounts::new(vault.clone(), clock.clone(), Sources::default()));
        let shared = Arc::new(entra.clone());
        let (audit, writer, _) = Audit::in_memory(clock.clone());
        tokio::spawn(writer.run());
        let refresh = Refresh::new(RefreshParts {
            vault: vault.clone(),
            accounts: accounts.clone(),
            entra: shared.clone(),
            identifier: shared,
            budget: TokenBudget::new(rates, clock.clone()),
            gate: Gate::new(Arc::new(Policy::from_toml("").unwrap()), audit),
            clock: clock.clone(),
        });
        let metrics = refresh.metrics();
        let (tokens, refresher, _follower) = tokens(refresh, clock.clone(), config);
        let stop = CancellationToken::new();
        let refresher = tokio::spawn(refresher.run(stop.clone()));
        vault.put_integration(integration(clock.now().wall)).await.unwrap();
        let given = Self {
            entra,
            vault,
            accounts,
            tokens,
            metrics,
            clock,
            refresher,
            stop: stop.clone(),
            _running: stop.drop_guard(),
            _folder: None,
        };
        given.link("old").await;
        given
    }

    /// In order: what runs lands.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        (&mut self.refresher).await.unwrap();
    }

    /// Gone, with its memory and whatever it was at.
    pub(super) async fn crash(&self) {
        self.refresher.abort();
        sleep(Duration::ZERO).await;
    }

    /// Makes the connection as `ConfirmLink` does, with a grant of `whose` and no token yet.
    pub(super) async fn link(&self, whose: &str) {
        let now = self.clock.now().wall;
        let link = a_verified_link(now);
        self.vault.insert_link(&link).await.unwrap();
        let standing = self.vault.standing(&key()).await.unwrap();
        let connection = Connection::Live(a_grant_of(whose, now));
        let generation = self.vault.connect((&link, 1), &standing, &connection).await.unwrap();
        let Connection::Live(live) = &connection else { unreachable!("made above") };
        self.tokens.adopt(&key(), generation, live, &self.store_clock());
    }

    /// The store has the same clock here.
    pub(super) fn store_clock(&self) -> StoreClock {
        let now = self.clock.now();
        StoreClock::new(now.wall, now, now)
    }

    /// Takes over a developer's grant; it is due at once.
    pub(super) async fn import(&self, developer: usize) {
        self.import_as(&developer_key(developer)).await;
    }

    /// Connections of an account in another tenant, all of them due.
    pub(super) async fn storm_of_another_tenant(&self, count: usize) {
        let account: crate::ids::AccountId = "storm".parse().unwrap();
        let tenant = GUID.replace('1', "2").parse().unwrap();
        let integration = integration(self.clock.now().wall);
        self.vault
            .put_integration(Integration { account: account.clone(), tenant, ..integration })
            .await
            .unwrap();
        for number in 0..count {
            let key = ConnectionKey { account: account.clone(), ..developer_key(number) };
            self.import_as(&key).await;
        }
    }

    async fn import_as(&self, key: &ConnectionKey) {
        let standing = self.vault.standing(key).await.unwrap();
        let imported = Imported {
            grant: RefreshToken::new(format!("grant-of-{}-0", key.role)),
            origin: key.role.to_string(),
            expected_object_id: None,
            imported_at: standing.store_now,
            imported_by: None,
            last_used_at: None,
            held: None,
        };
        self.vault.import(key, &standing, &imported).await.unwrap();
    }

    pub(super) async fn disconnect(&self) {
        let (generation, _) = self.vault.disconnect(&key()).await.unwrap().unwrap();
        self.tokens.end(&key(), generation);
    }

    pub(super) fn ask_for(&self, min_ttl: Duration) -> Asked {
        let tokens = self.tokens.clone();
        tokio::spawn(async move { tokens.token(&allowed(), &key(), min_ttl).await })
    }

    pub(crate) fn ask(&self) -> Asked {
        self.ask_for(Duration::from_mins(5))
    }

    pub(super) async fn answer(&self) -> Result<String, Reason> {
        self.answer_of(&key()).await
    }

    pub(super) async fn answer_of(&self, key: &ConnectionKey) -> Result<String, Reason> {
        let answer = self.tokens.token(&allowed(), key, Duration::from_mins(5)).await;
        answer.map(|token| token.access.expose().to_owned()).map_err(|problem| problem.reason)
    }

    pub(super) async fn refresh_in_flight(&self) -> Asked {
        self.entra.hold();
        let asked = self.ask();
        self.entra.held().wait_for(|held| *held == 1).await.unwrap();
        asked
    }

    pub(super) async fn row(&self) -> Opened {
        self.vault.connection(&key()).await.unwrap().unwrap()
    }
}

pub(super) fn key() -> ConnectionKey {
    ConnectionKey { account: "acme".parse().unwrap(), role: Role::ServiceUser }
}

pub(super) fn developer_key(number: usize) -> ConnectionKey {
    let role = Role::Developer(format!("d{number}").parse().unwrap());
    ConnectionKey { account: "acme".parse().unwrap(), role }
}

pub(super) fn allowed() -> Allowed {
    let caller = Caller::Dns("test".into());
    Allowed::for_tests(caller, Permission::ReleaseServiceUser, "acme".parse().unwrap())
}

async fn make_vault(folder: &std::path::Path, clock: Arc<RuntimeClock>) -> Vault {
    let (key_file, store_file) = (folder.join("key"), folder.join("db"));
    FileKey::create(&key_file).unwrap();
    let keys = KeyProvider::File(FileKey::open(&key_file).unwrap());
    let store_id: crate::ids::StoreId = "store".parse().unwrap();
    let keyring = Keyring::generate();
    let store_place = StorePlace::File(store_file);
    let wrapped = keys.wrap(store_id.as_str(), &keyring.to_bytes());
    Store::create(&store_place, &store_id, &wrapped).await.unwrap();
    let store = Store::open(&store_place, clock, "tests").await.unwrap();
    Vault::new(store, Sealer::new(store_id, keyring), Duration::from_hours(48))
}

pub(super) fn integration(now: Timestamp) -> Integration {
    let secret = ClientSecret::new("secret".to_owned());
    Integration {
        account: "acme".parse().unwrap(),
        version: 0,
        organization: "contoso".parse().unwrap(),
        tenant: GUID.parse().unwrap(),
        client_id: GUID.parse().unwrap(),
        public_url: "https://platform.example".parse().unwrap(),
        headless: crate::connection::HeadlessIdentity::ServiceUser,
        scopes: Vec::new(),
        suspension: None,
        created_at: now,
        updated_at: now,
        credentials: vec![ClientCredential::new("one".parse().unwrap(), Means::secret(secret), now, None)],
    }
}

fn a_verified_link(now: Timestamp) -> Link {
    a_verified_link_of(&key(), &crate::secret::make_random_text(), now)
}

pub(super) fn a_verified_link_of(key: &ConnectionKey, id: &str, now: Timestamp) -> Link {
    Link {
        id: id.parse().unwrap(),
        key: key.clone(),
        expires_at: crate::clock::later(now, Duration::from_mins(10)),
        front: crate::vault::Front::OurPages,
        return_to: None,
        phase: LinkPhase::Verified,
        begun_by: Caller::Dns("test".into()),
        actor: None,
        expected_login: None,
        client_id: GUID.parse().unwrap(),
        redirect_uri: "https://platform.example/complete".parse().unwrap(),
        state_hash: format!("state of {id}"),
        secrets: None,
        identity: None,
        replaces: None,
        ended: None,
    }
}

pub(super) fn a_grant_of(whose: &str, now: Timestamp) -> Live {
    Live {
        identity: Identity {
            tenant: GUID.parse().unwrap(),
            object_id: GUID.parse().unwrap(),
            login: format!("{whose}@contoso.com"),
            display_name: whose.to_owned(),
        },
        grant: Some(RefreshToken::new(format!("grant-of-{whose}-0"))),
        token: None,
        linked_at: now,
        linked_by: None,
        refreshed_at: None,
        origin: None,
    }
}

pub(super) const GUID: &str = "10000000-0000-4000-a000-000000000001";
