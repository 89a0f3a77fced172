//! Links: one sealed row from begin to connected or ended.

use jiff::Timestamp;
use url::Url;

use super::connection::StoredToken;
use super::record::{self, LinkForm};
use super::{Vault, VaultError};
use crate::caller::Caller;
use crate::connection::{ConnectionKey, Identity, Role};
use crate::ids::{AccountId, ClientId, Label, LinkId};
use crate::reason::Reason;
use crate::seal::Place;
use crate::secret::{PkceVerifier, RawIdToken, RefreshToken};
use crate::store::{Cas, LinkRow};

/// The process that makes a connection (design.md 4.2).
#[derive(Debug)]
pub struct Link {
    pub id: LinkId,
    pub key: ConnectionKey,
    /// Checked at use: a sweeper that is late must not make a link live longer.
    pub expires_at: Timestamp,
    pub phase: LinkPhase,
    pub front: Front,
    pub begun_by: Caller,
    pub actor: Option<Label>,
    pub expected_login: Option<String>,
    /// The app that the person consents to: a grant is worth nothing to another.
    pub client_id: ClientId,
    pub redirect_uri: Url,
    /// Where the last page sends the browser, with the confirmation that is then required.
    pub return_to: Option<Url>,
    pub state_hash: String,
    /// Wiped when the link is connected or ended.
    pub secrets: Option<LinkSecrets>,
    /// Who signed in; known from `verified` on.
    pub identity: Option<Identity>,
    /// Whom the caller was shown as being replaced.
    pub replaces: Option<Replaced>,
    pub ended: Option<LinkEnd>,
}

#[derive(Debug)]
pub struct LinkSecrets {
    pub state: String,
    pub nonce: String,
    pub verifier: PkceVerifier,
    pub cookie_hash: Option<String>,
    /// Of the one-time confirmation that only the person's browser carries.
    pub confirmation_hash: Option<String>,
    pub grant: Option<RefreshToken>,
    pub token: Option<StoredToken>,
    pub unverified_id_token: Option<RawIdToken>,
}

/// Whose pages the person meets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Front {
    /// Front A: ours, behind the platform's ingress.
    #[default]
    OurPages,
    /// Front B: the platform's, which calls `CompleteLink`.
    PlatformPages,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkPhase {
    Begun,
    Taken,
    Held,
    Verified,
    Connected,
    Ended,
}

/// Why a link is over without a connection.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct LinkEnd {
    pub reason: Reason,
    /// In our own words; nothing of Entra's text is in it.
    pub message: String,
}

/// The connection that stood in the place when the link was verified.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Replaced {
    pub identity: Option<Identity>,
}

impl LinkPhase {
    pub fn is_open(self) -> bool {
        match self {
            Self::Begun | Self::Taken | Self::Held | Self::Verified => true,
            Self::Connected | Self::Ended => false,
        }
    }
}

impl Link {
    /// Ends it and wipes its secrets.
    pub fn end(&mut self, reason: Reason, message: impl Into<String>) {
        self.phase = LinkPhase::Ended;
        self.secrets = None;
        self.ended = Some(LinkEnd { reason, message: message.into() });
    }
}

impl Vault {
    pub async fn insert_link(&self, link: &Link) -> Result<(), VaultError> {
        Ok(self.store.insert_link(self.link_row(link, FIRST_VERSION)).await?)
    }

    /// The link with the version to save it against, and the store's clock.
    pub async fn link(&self, id: &LinkId) -> Result<Option<(Link, i64, Timestamp)>, VaultError> {
        let loaded = self.store.link(id).await?;
        self.open_link_row(loaded.row, loaded.store_now)
    }

    /// The link whose `state` hashes to this.
    pub async fn link_by_state(&self, hash: &str) -> Result<Option<(Link, i64, Timestamp)>, VaultError> {
        let loaded = self.store.link_by_state(hash).await?;
        self.open_link_row(loaded.row, loaded.store_now)
    }

    /// Saves the link if nobody did since `version`; returns the new version.
    pub async fn save_link(&self, link: &Link, version: i64) -> Result<i64, VaultError> {
        match self.store.replace_link(version, self.link_row(link, version + 1)).await? {
            Cas::Won => Ok(version + 1),
            Cas::Lost => Err(VaultError::Changed(format!("link {}", link.id))),
        }
    }

    /// Ends the open links of a role (or all), until none is left: one that took its next step meanwhile
    /// is ended in the next round.
    pub async fn end_links(
        &self,
        account: &AccountId,
        role: Option<&Role>,
        because: &str,
    ) -> Result<(), VaultError> {
        for _ in 0..END_ROUNDS_MAX {
            let ended = self.ended_links(account, role, because).await?;
            if ended.is_empty() {
                return Ok(());
            }
            for (version, row) in ended {
                let _ = self.store.replace_link(version, row).await?;
            }
        }
        Err(VaultError::Changed(format!("links of {account}")))
    }

    /// Ends links that ran out and wipes their secrets; returns how many.
    pub async fn end_expired_links(&self) -> Result<usize, VaultError> {
        let rows = self.store.expired_links(ENDED_AT_ONCE).await?;
        for row in &rows {
            let ended = self.ended(row, "The link was not finished in time. Begin it again.");
            // Lost means that it was confirmed or ended a moment ago; both are final.
            let _ = self.store.replace_link(row.version, ended).await?;
        }
        Ok(rows.len())
    }

    /// How many links of the account wait for their end.
    pub async fn open_link_count(&self, account: &AccountId) -> Result<usize, VaultError> {
        Ok(self.store.open_links(account, None).await?.len())
    }

    /// Deletes links that expired before `before`, sealed secrets and all.
    pub async fn delete_links(&self, before: Timestamp) -> Result<usize, VaultError> {
        Ok(self.store.delete_links(before).await?)
    }

    /// The open links of a role (or all), as rows that end them.
    pub(super) async fn ended_links(
        &self,
        account: &AccountId,
        role: Option<&Role>,
        because: &str,
    ) -> Result<Vec<(i64, LinkRow)>, VaultError> {
        let mut ended = Vec::new();
        for row in self.store.open_links(account, role).await? {
            ended.push((row.version, self.ended(&row, because)));
        }
        Ok(ended)
    }

    /// The row as it is once the link has ended. One that does not open ends too, with nothing but its
    /// end in it: a damaged link fails alone, and must not stand in the way of a disconnect (P9).
    fn ended(&self, row: &LinkRow, because: &str) -> LinkRow {
        let Ok(mut link) = self.open_link(row) else {
            tracing::error!(link = %row.id, "a link's record is damaged; the link is ended without it");
            return LinkRow { open: false, version: row.version + 1, sealed: Vec::new(), ..row.clone() };
        };
        link.end(Reason::LinkExpired, because);
        self.link_row(&link, row.version + 1)
    }

    pub(super) fn link_row(&self, link: &Link, version: i64) -> LinkRow {
        let plain = record::write(&LinkForm::from(link));
        let place = Place { table: TABLE, key: &place_key(&link.id, &link.key), generation: version };
        LinkRow {
            id: link.id.clone(),
            key: link.key.clone(),
            state_hash: link.state_hash.clone(),
            version,
            open: link.phase.is_open(),
            expires_at: link.expires_at,
            sealed: self.sealer.seal(&place, &plain),
        }
    }

    fn open_link_row(
        &self,
        row: Option<LinkRow>,
        store_now: Timestamp,
    ) -> Result<Option<(Link, i64, Timestamp)>, VaultError> {
        row.map(|row| Ok((self.open_link(&row)?, row.version, store_now))).transpose()
    }

    fn open_link(&self, row: &LinkRow) -> Result<Link, VaultError> {
        let name = format!("link {}", row.id);
        let place = Place { table: TABLE, key: &place_key(&row.id, &row.key), generation: row.version };
        let plain = self
            .sealer
            .open(&place, &row.sealed)
            .map_err(|source| VaultError::Sealed { key: name.clone(), source })?;
        let form: LinkForm<'_> = record::read(&plain).ok_or(VaultError::Damaged(name.clone()))?;
        let link = form.into_link(row.id.clone(), row.key.clone());
        if link.phase.is_open() != row.open || link.state_hash != row.state_hash {
            return Err(VaultError::Damaged(name));
        }
        Ok(link)
    }
}

/// A link is bound to its id and to the connection it is for: neither column can be edited.
fn place_key(id: &LinkId, key: &ConnectionKey) -> String {
    format!("{id} {key}")
}

const TABLE: &str = "link";
const FIRST_VERSION: i64 = 1;
/// A link takes four steps at most from begun to its end.
const END_ROUNDS_MAX: usize = 6;
/// A sweep takes this many; the next one goes on.
const ENDED_AT_ONCE: usize = 256;
