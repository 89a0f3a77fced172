//! azdo-broker owns the Entra ID secrets and tokens of a platform's Azure DevOps integration and hands
//! out short-lived access over gRPC, so that what clones repositories, runs jobs or backs an IDE never
//! holds a client secret or a refresh token.
//!
//! This page is the architecture: words, floors, promises, and three walks through the modules. The
//! contract with callers is `proto/azdo/broker/v1/`; `README.md` begins with the commands that show it.
//!
//! # Words
//!
//! One word per thing, in code, proto, logs, metrics and documents.
//!
//! | Word | Meaning |
//! |---|---|
//! | account | a customer of the platform |
//! | integration | an account's organization, tenant, client id, public URL, headless identity and client credentials |
//! | client credential | what proves our app to Entra: a secret, a certificate, or an assertion of another issuer. Several, each with an id and an expiry |
//! | connection | one identity of an account: its service user, its service principal, or a developer |
//! | headless identity | the service user or the service principal: who acts when no person is there |
//! | identity | who that is in Entra: tenant id, object id, e-mail, display name |
//! | grant | what Entra gave for a connection: the refresh token. Only the broker ever holds it |
//! | token | a short-lived access token, handed to callers |
//! | link | the process that makes a connection, and its row: begun → taken → held → verified → connected, or ended |
//! | caller | the workload that calls us, known by certificate or by socket name and uid, never by what it says of itself |
//! | actor | the person a caller says it acts for: recorded, never trusted for access |
//! | policy | which caller may do what for which accounts |
//! | release | handing a token to a caller: decide, fetch, record, answer |
//! | generation | the number of a connection's state: grows with every link, refresh and disconnect, never repeats |
//! | change | what happened to a connection: connected, refreshed, failing, recovered, needs relink, disconnected |
//! | outbox | the changes of a day, in the store, written with what they tell of |
//! | watch | a caller's stream of changes, which goes on from a cursor |
//! | slot | what this process knows of one connection's token, for everybody who waits for it |
//! | lease | one replica's right, for a while, to refresh one connection |
//! | pause | "not before this moment, for this reason" |
//! | seal, open | encrypt, decrypt a record with the keyring |
//!
//! # Floors
//!
//! A module uses lower floors and its own subtree, never what is above or beside it. `tests/architecture`
//! holds that, together with the size of files, the files that may look inside a secret, and the places
//! where tasks are started, statuses made and the environment read.
//!
//! | Floor | Modules | |
//! |---|---|---|
//! | 7 composition | [`app`] [`config`] [`lifecycle`] [`offline`] [`process`] [`telemetry`] | put together, started, drained; these use each other |
//! | 6 faces | [`grpc`] [`link_pages`] [`admin`] [`cli`] [`git_credential`] | decode, ask, encode; no decisions |
//! | 5½ client | [`client`] | reaches a broker by socket or mutual TLS |
//! | 5 wire | [`pb`] | types generated from the proto |
//! | 4 use cases | [`release`] [`links`] [`repos`] [`integrations`] [`operations`] | one story each |
//! | 3 tokens | [`tokens`] | slots, the refresher, the one refresh |
//! | 2½ accounts | [`accounts`] [`identify`] | integrations in memory, the client credential in force; who signed in |
//! | 2 vault | [`vault`] | opened records over store and seal |
//! | 1½ gate | [`gate`] | decide and record, asked as one |
//! | 1 mechanisms | [`policy`] [`budgets`] [`store`] [`seal`] [`keys`] [`entra`] [`devops`] [`audit`] [`tls`] | know nothing of each other |
//! | ½ means | [`outgoing`] [`files`] [`tasks`] | the one way out, secret files, owned work |
//! | 0 vocabulary | [`ids`] [`connection`] [`caller`] [`event`] [`secret`] [`clock`] [`reason`] [`remedy`] [`backoff`] [`git_url`] | no IO, no async; words explain words |
//!
//! `testing` (a feature no release has) holds fakes of what is below floor 3, for tests alone.
//!
//! # Promises
//!
//! Numbered, because module documents and tests cite them.
//!
//! - **P1 Nothing raw leaves.** Client secrets and grants have no way out; access tokens leave in a release only.
//! - **P2 Default deny.** No rule, no answer; decided before store, cache or upstream is touched.
//! - **P3 Recorded before released.** What cannot be written to the audit is not handed out.
//! - **P4 No link is lost.** A grant is sealed before anything that could fail comes after it; a refresh once
//!   sent is finished; a bad client secret ends no connection.
//! - **P5 One refresh.** Per connection and expiry one token request, however many ask.
//! - **P6 A valid token is never withheld.** Nobody waits behind a refresh or an outage while a good token is at hand.
//! - **P7 Never an expired, foreign or shortened answer.** Not of another identity, not after a disconnect, no
//!   incomplete list.
//! - **P8 Bounded.** Every queue, body, wait, retry and cache has a named limit.
//! - **P9 The store is not trusted.** Reading it gives nothing; an edited or swapped record fails alone.
//! - **P10 Errors tell who must do what.** Each reason names the person and the act.
//!
//! # Three walks
//!
//! ## Release, the hot path
//!
//! 1. [`tls`] accepted the connection and knows the [`caller`] from its certificate or socket; [`grpc`] parses
//!    the request into names that were checked and calls [`Release::service_user_token`] or
//!    [`Release::git_credential`].
//! 2. [`Gate::allow`] asks [`Policy::decide`]. Its [`Allowed`] is what the next steps demand; a refusal is
//!    recorded and answered alike for what is forbidden and what does not exist (P2).
//! 3. [`Accounts::integration`] tells which connection is the headless one; for git, whether the URL is of
//!    the account's own organization.
//! 4. [`Tokens::token`] looks into the connection's slot. A token that is good for as long as asked is cloned
//!    from there, with no store and no upstream (P6). Otherwise the refresher is told, and this call waits for
//!    the slot, at most ten seconds.
//! 5. [`Gate::conclude`] writes the release to the [`audit`], by fingerprint, and gives the token back only
//!    when the line is on the disk (P3). `Released` exists from here on, and [`grpc`] can encode nothing else.
//!
//! ## Link
//!
//! 1. [`Links::begin`]: decided, then a row `begun` with PKCE verifier, state and nonce, sealed. The answer is
//!    the URL of our page.
//! 2. [`Links::show`] (GET) tells who will be connected to what, changes nothing and gives the browser its
//!    cookie; [`Links::enter`] (POST) binds the link to that cookie and sends the browser to Entra.
//! 3. [`Links::complete`], in a task of ours, since browsers leave: role, browser, phase and time must agree;
//!    whoever writes `taken` first has the code; [`Entra::redeem`] spends it; grant, token and id token are
//!    sealed into the row at once (`held`) before anything else is tried (P4).
//! 4. Then who it is: [`Entra::verify_id_token`], and membership by [`Devops::who_am_i`] → `verified`. What a dead
//!    process left `held` is checked again by [`Links::link`], which is how callers look.
//! 5. [`Links::confirm`], only by the caller that began: the identity to be replaced is still the one shown,
//!    the integration still of the same tenant and app; the act is recorded, then [`Vault::connect`] moves the
//!    grant and wipes the link in one transaction; [`Tokens::publish`] publishes the token. Without this step a
//!    link would be a bearer invitation.
//!
//! ## Refresh
//!
//! 1. The [`Refresher`] hears a demand, or finds at a tick what [`Vault::claim_due`] says is due. On demand the
//!    row is read first: another process may have refreshed already.
//! 2. [`Vault::claim`] takes the lease; never before `retry_at`, whoever waits (P5).
//! 3. [`Accounts::attempts`] picks the client credential in force; [`TokenEndpoint::refresh`] spends the grant,
//!    with the next credential if Entra rejects the first.
//!    From here on the task runs to its end, whoever went away (P4).
//! 4. An answer is committed by [`Vault::commit_refresh`], a compare-and-swap on the generation. A token whose
//!    swap was lost is dropped: somebody linked or disconnected meanwhile (P7).
//! 5. A refusal was judged by [`entra`] alone. It falls on the client credential ([`Accounts::reject`]) or on the
//!    connection ([`Vault::fail`]), sets the pause, and takes no valid token away.
//! 6. The slot learns token or problem, and everybody who waits reads it there.
//!
//! Each request waits for its turn at the [`TokenBudget`]: a rate per tenant and over all, demanded ones first. A
//! store that does not take the answer is asked until it does; after two seconds the token is lent to the slot, and
//! whatever is committed later ousts it.
//!
//! ## Several replicas
//!
//! Over PostgreSQL any number of processes run the same walks: the lease says who refreshes, the generation who
//! wins. The [`Follower`] hears what the others write, and compares the generations of what is held after every
//! gap, so that a disconnect, a link or a suspension is in force everywhere within a second.
//!
//! ## A store that goes back
//!
//! Each link and disconnect that was made or learned is in the audit with its generation. A row that is older than
//! one of them does not open ([`Vault::rollbacks`]), until somebody links anew or an operator accepts the restore.
//!
//! Where each grant works once ([`Rotation::Strict`]) the row says before step 3 that the grant is lost, and the
//! answer overwrites that: what a broken connection or a kill took is told, and nothing is sent twice.
//!
//! # The other ways in
//!
//! - **The platform's own pages** (front B): the caller sends the browser to Entra itself and hands over what
//!   came back by [`Links::receive`]; from `held` on it is the link above.
//! - **An import**: [`Links::import`] seals a grant of another system as an imported connection; the refresher
//!   proves it by one refresh, and only then is it released.
//! - **A service principal**: [`Links::connect_service_principal`] proves the app by a token of its own; no grant, no
//!   person.
//!
//! # Repositories
//!
//! [`Repos::page`] decides, then looks for a snapshot of the connection that is young enough, or has one made:
//! one flight per connection asks [`Devops::repositories`], at the identity's pace, which follows Azure DevOps'
//! `X-RateLimit` headers ([`devops`]), and whoever comes meanwhile waits for it. Permissions are asked for the page that is shown. A page token names the snapshot and is good
//! for its caller, connection and filter alone.
//!
//! # Watching
//!
//! A write that changes how a connection is to others carries a [`Change`], and the store leaves it in its outbox in
//! the same transaction. [`Links::watch`] decides, tells the present, and then reads the outbox on whenever
//! [`Vault::wake_watchers`] was called, by a write of ours or by news of another replica, and every few seconds
//! anyway. What it tells of a connection is the opened record; the outbox only says that there is something to tell.
//!
//! # Not built yet
//!
//! Methods of the contract that answer UNIMPLEMENTED: all of `Operations` but `AcceptRestore`. And: developer
//! assertions, budgets per caller, key providers other than a file, a chained and signed audit, rotation of data
//! keys, the relay.
//!
//! [`Release::service_user_token`]: release::Release::service_user_token
//! [`Release::git_credential`]: release::Release::git_credential
//! [`Gate::allow`]: gate::Gate::allow
//! [`Gate::conclude`]: gate::Gate::conclude
//! [`Policy::decide`]: policy::Policy::decide
//! [`Allowed`]: policy::Allowed
//! [`Accounts::integration`]: accounts::Accounts::integration
//! [`Accounts::attempts`]: accounts::Accounts::attempts
//! [`Accounts::reject`]: accounts::Accounts::reject
//! [`Tokens::token`]: tokens::Tokens::token
//! [`Tokens::publish`]: tokens::Tokens::publish
//! [`Refresher`]: tokens::Refresher
//! [`Links::begin`]: links::Links::begin
//! [`Links::show`]: links::Links::show
//! [`Links::enter`]: links::Links::enter
//! [`Links::complete`]: links::Links::complete
//! [`Links::link`]: links::Links::link
//! [`Links::confirm`]: links::Links::confirm
//! [`Entra::redeem`]: entra::Entra::redeem
//! [`Entra::verify_id_token`]: entra::Entra::verify_id_token
//! [`TokenBudget`]: budgets::TokenBudget
//! [`Follower`]: tokens::Follower
//! [`Vault::rollbacks`]: vault::Vault::rollbacks
//! [`TokenEndpoint::refresh`]: entra::TokenEndpoint::refresh
//! [`Devops::who_am_i`]: devops::Devops::who_am_i
//! [`Rotation::Strict`]: entra::Rotation::Strict
//! [`Change`]: connection::Change
//! [`Links::watch`]: links::Links::watch
//! [`Vault::wake_watchers`]: vault::Vault::wake_watchers
//! [`Links::receive`]: links::Links::receive
//! [`Links::import`]: links::Links::import
//! [`Links::connect_service_principal`]: links::Links::connect_service_principal
//! [`Repos::page`]: repos::Repos::page
//! [`Devops::repositories`]: devops::Devops::repositories
//! [`Vault::connect`]: vault::Vault::connect
//! [`Vault::claim`]: vault::Vault::claim
//! [`Vault::claim_due`]: vault::Vault::claim_due
//! [`Vault::commit_refresh`]: vault::Vault::commit_refresh
//! [`Vault::fail`]: vault::Vault::fail

// 7, composition
pub mod app;
pub mod config;
pub mod lifecycle;
pub mod offline;
pub mod process;
pub mod telemetry;

// 6, faces
pub mod admin;
pub mod cli;
pub mod git_credential;
pub mod grpc;
pub mod link_pages;

// 5½, the client, and 5, the wire
pub mod client;
pub mod pb;

// 4, use cases
pub mod integrations;
pub mod links;
pub mod operations;
pub mod release;
pub mod repos;

// 3, tokens
pub mod tokens;

// 2½, accounts, 2, the vault, and 1½, the gate
pub mod accounts;
pub mod gate;
pub mod identify;
pub mod vault;

// 1, mechanisms, which know nothing of each other
pub mod audit;
pub mod budgets;
pub mod devops;
pub mod entra;
pub mod keys;
pub mod policy;
pub mod seal;
pub mod store;
pub mod tls;

// ½, means
pub mod files;
pub mod outgoing;
pub mod tasks;

// 0, vocabulary
pub mod backoff;
pub mod caller;
pub mod clock;
pub mod connection;
pub mod event;
pub mod git_url;
pub mod ids;
pub mod reason;
pub mod remedy;
pub mod secret;

// Fakes, for tests alone
#[cfg(any(test, feature = "testing"))]
pub mod testing;
