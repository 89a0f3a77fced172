//! What people do, as the use cases do it for them: again and again until it is answered, or until they
//! give up.

use std::rc::Rc;
use std::time::Duration;

use super::super::given::{GUID, a_verified_link_of};
use super::checks::store_time;
use super::replica::Replica;
use super::run::Done;
use crate::clock::{Clock as _, StoreClock};
use crate::connection::{ConnectionKey, Identity};
use crate::entra::Answered;
use crate::ids::Generation;
use crate::vault::{Connection, Link, LinkPhase, Live, StoredToken, VaultError};

/// As `Disconnect`.
pub(super) async fn disconnect(replica: Rc<Replica>, key: ConnectionKey) -> Done {
    for _ in 0..TRIES {
        match try_to_disconnect(&replica, &key).await {
            Ok(generation) => return Done::Acted(generation),
            Err(_) => replica.clock.sleep(PATIENCE).await,
        }
    }
    Done::GaveUp
}

/// As `ConfirmLink`, of a link that is verified.
pub(super) async fn confirm(replica: Rc<Replica>, link: Link, connection: Connection) -> Done {
    for _ in 0..TRIES {
        match try_to_confirm(&replica, &link, &connection).await {
            Ok(Some(generation)) => return Done::Acted(generation),
            Ok(None) => {}
            Err(_) => replica.clock.sleep(PATIENCE).await,
        }
    }
    Done::GaveUp
}

async fn try_to_disconnect(replica: &Replica, key: &ConnectionKey) -> Result<Generation, VaultError> {
    if let Some((generation, _)) = replica.vault.disconnect(key).await? {
        replica.tokens.end(key, generation);
    }
    look(replica, key).await
}

async fn try_to_confirm(
    replica: &Replica,
    link: &Link,
    connection: &Connection,
) -> Result<Option<Generation>, VaultError> {
    let Some((mut found, version, _)) = replica.vault.link(&link.id).await? else { return Ok(None) };
    if found.phase == LinkPhase::Connected {
        return look(replica, &found.key).await.map(Some);
    }
    if found.phase != LinkPhase::Verified {
        return Ok(None);
    }
    let asked = replica.clock.now();
    let standing = replica.vault.standing(&found.key).await?;
    let store_clock = StoreClock::new(standing.store_now, asked, replica.clock.now());
    found.phase = LinkPhase::Connected;
    match replica.vault.connect((&found, version), &standing, connection).await {
        Ok(generation) => {
            let Connection::Live(live) = connection else { unreachable!("a link makes a live one") };
            replica.tokens.adopt(&found.key, generation, live, &store_clock);
            Ok(Some(generation))
        }
        Err(VaultError::Changed(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whoever repeats an act is told what the row says, and so are the releases of this replica.
async fn look(replica: &Replica, key: &ConnectionKey) -> Result<Generation, VaultError> {
    let asked = replica.clock.now();
    let Some(opened) = replica.vault.connection(key).await? else { return Ok(Generation::default()) };
    let store_clock = StoreClock::new(opened.store_now, asked, replica.clock.now());
    replica.tokens.publish(&opened, &store_clock);
    Ok(opened.generation)
}

/// The link of somebody who signed in, and the connection it is to become.
pub(super) fn signed_in(
    number: u64,
    key: &ConnectionKey,
    identity: &Identity,
    answered: Answered,
    at: Duration,
) -> (Link, Connection) {
    let now = store_time(at);
    let link = a_verified_link_of(key, &format!("link-{number}"), now);
    let token = StoredToken {
        access: answered.access,
        expires_at: crate::clock::later(now, answered.lifetime),
        lifetime: answered.lifetime,
        scopes: answered.scopes,
    };
    let connection = Connection::Live(Live {
        identity: identity.clone(),
        grant: answered.refresh,
        // Some wait so long for their confirmation that the token is not worth keeping.
        token: number.is_multiple_of(2).then_some(token),
        linked_at: now,
        linked_by: None,
        refreshed_at: None,
        origin: None,
    });
    (link, connection)
}

pub(super) fn identity_of(whom: usize) -> Identity {
    let login = format!("{}@contoso.com", super::schedule::WHO[whom]);
    let object_id = format!("{}{whom}", &GUID[..GUID.len() - 1]);
    Identity {
        tenant: GUID.parse().expect("a valid constant"),
        object_id: object_id.parse().expect("is shaped like one"),
        login,
        display_name: String::new(),
    }
}

const TRIES: u32 = 6;
const PATIENCE: Duration = Duration::from_secs(2);
