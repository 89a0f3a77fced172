//! Looking: links and connections as callers may see them, without a secret in them.

use jiff::Timestamp;

use super::{Found, Links, Parts, lost};
use crate::accounts::{warning_of_grant, warnings_of};
use crate::connection::{ConnectionKey, Failure, Identity, Role};
use crate::gate::Asking;
use crate::ids::{AccountId, Generation, Label, LinkId};
use crate::policy::Permission;
use crate::reason::{Reason, Refused, Warning};
use crate::remedy::Case;
use crate::vault::{Connection, LinkEnd, LinkPhase, Opened, VaultError};

/// A link as its beginner sees it.
#[derive(Clone, Debug)]
pub struct LinkView {
    pub id: LinkId,
    pub key: ConnectionKey,
    pub phase: LinkPhase,
    pub identity: Option<Identity>,
    pub replaces: Option<Identity>,
    pub ended: Option<LinkEnd>,
    pub expires_at: Timestamp,
    /// Whether `ConfirmLink` needs what the person's browser carries.
    pub confirmation_required: bool,
    pub warnings: Vec<Warning>,
}

/// A connection as its readers see it.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    pub key: ConnectionKey,
    pub generation: Generation,
    pub identity: Option<Identity>,
    pub live: bool,
    /// False for an import of which nobody knows yet whose it is.
    pub is_proven: bool,
    pub linked_at: Option<Timestamp>,
    pub linked_by: Option<Label>,
    pub token_expires_at: Option<Timestamp>,
    pub refreshed_at: Option<Timestamp>,
    /// When its grant dies of idleness.
    pub grant_expires_by: Option<Timestamp>,
    pub failure: Option<Failure>,
    pub warnings: Vec<Warning>,
}

impl Links {
    /// The link as it is; resumes the checks of a held one. Only for the caller that began it.
    pub async fn link(&self, asking: Asking, account: AccountId, id: LinkId) -> Result<LinkView, Refused> {
        let allowed = self.0.gate.allow(&asking, Permission::Link, &account).await?;
        let found = self.0.own_link(&allowed, &id).await?;
        let parts = self.0.clone();
        let work = async move { parts.brought_up_to_date(found).await };
        self.0.tasks.run(work).await.unwrap_or_else(|_| Err(lost()))
    }

    /// One connection, tombstones included.
    pub async fn connection(
        &self,
        asking: Asking,
        account: AccountId,
        role: Role,
    ) -> Result<ConnectionView, Refused> {
        let allowed = self.0.gate.allow(&asking, Permission::ConnectionsRead, &account).await?;
        let key = ConnectionKey { account: allowed.account().clone(), role };
        let opened = self.0.vault.connection(&key).await?;
        let view = opened.as_ref().map(ConnectionView::of).ok_or_else(|| never_linked(&key))?;
        Ok(view.warned(self.0.warnings(&key.account).await, self.0.clock.now().wall))
    }

    /// A page of an account's connections after `after`, at most `limit`.
    pub async fn connections(
        &self,
        asking: Asking,
        account: AccountId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ConnectionView>, Refused> {
        let allowed = self.0.gate.allow(&asking, Permission::ConnectionsRead, &account).await?;
        let page = self.0.vault.connections(allowed.account(), after, limit).await?;
        let warnings = self.0.warnings(allowed.account()).await;
        let view = |(key, opened)| ConnectionView::found(key, opened);
        let now = self.0.clock.now().wall;
        Ok(page.into_iter().map(view).map(|view| view.warned(warnings.clone(), now)).collect())
    }
}

/// Whether two places hold the same identity, or both nobody.
pub(super) fn are_same(one: Option<&Identity>, other: Option<&Identity>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.is_same_as(other),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

pub(super) fn never_linked(key: &ConnectionKey) -> Refused {
    key.not_linked("was never linked").into()
}

impl Parts {
    /// What soon may stop the account's connections; none if that cannot be told now.
    pub(super) async fn warnings(&self, account: &AccountId) -> Vec<Warning> {
        let integration = self.accounts.integration(account).await.ok().flatten();
        integration.map(|one| warnings_of(&one, self.clock.now().wall)).unwrap_or_default()
    }

    pub(super) async fn brought_up_to_date(&self, found: Found) -> Result<LinkView, Refused> {
        let warnings = self.warnings(&found.link.key.account).await;
        Ok(LinkView { warnings, ..self.looked_at(found).await? })
    }

    async fn looked_at(&self, mut found: Found) -> Result<LinkView, Refused> {
        if found.has_expired() {
            let message = "The link was not finished in time. Begin it again.";
            found.link.end(Reason::LinkExpired, message);
            return Ok(LinkView::of(found));
        }
        match found.link.phase {
            LinkPhase::Held => {
                let integration = self.integration(&found.link.key.account).await?;
                // Its outcome stands in the link.
                let _checked = self.check_held(&mut found, &integration).await;
            }
            LinkPhase::Verified => self.show_who_stands_now(&mut found).await?,
            LinkPhase::Begun | LinkPhase::Taken | LinkPhase::Connected | LinkPhase::Ended => {}
        }
        Ok(LinkView::of(found))
    }

    /// Whom the link shows as replaced is whom `ConfirmLink` compares with.
    async fn show_who_stands_now(&self, found: &mut Found) -> Result<(), Refused> {
        let Some(identity) = found.link.identity.clone() else {
            return Ok(());
        };
        let stands = self.replaced(found, &identity).await?;
        let shown = found.link.replaces.as_ref().and_then(|replaced| replaced.identity.clone());
        if !are_same(shown.as_ref(), stands.as_ref()) {
            found.link.replaces = Some(crate::vault::Replaced { identity: stands });
            self.save(found).await?;
        }
        Ok(())
    }
}

impl LinkView {
    fn of(found: Found) -> Self {
        let link = found.link;
        Self {
            confirmation_required: link.return_to.is_some(),
            warnings: Vec::new(),
            id: link.id,
            key: link.key,
            phase: link.phase,
            identity: link.identity,
            replaces: link.replaces.and_then(|replaced| replaced.identity),
            ended: link.ended,
            expires_at: link.expires_at,
        }
    }
}

impl ConnectionView {
    /// One of a list, as it opened or did not.
    pub(super) fn found(key: ConnectionKey, opened: Result<Opened, VaultError>) -> Self {
        match opened {
            Ok(opened) => Self::of(&opened),
            Err(error) => Self::damaged(key, error.problem().reason),
        }
    }

    /// Of whom nothing is there, not even that it was ended.
    pub(super) fn nobody(key: ConnectionKey) -> Self {
        Self {
            key,
            generation: Generation::default(),
            identity: None,
            live: false,
            is_proven: true,
            grant_expires_by: None,
            linked_at: None,
            linked_by: None,
            token_expires_at: None,
            refreshed_at: None,
            failure: None,
            warnings: Vec::new(),
        }
    }

    pub(super) fn of(opened: &Opened) -> Self {
        let nothing = Self {
            generation: opened.generation,
            grant_expires_by: opened.connection.grant_expires_by(),
            failure: opened.failure.clone(),
            ..Self::nobody(opened.key.clone())
        };
        match &opened.connection {
            Connection::Live(live) => Self {
                identity: Some(live.identity.clone()),
                live: true,
                linked_at: Some(live.linked_at),
                linked_by: live.linked_by.clone(),
                token_expires_at: live.token.as_ref().map(|token| token.expires_at),
                refreshed_at: live.refreshed_at,
                ..nothing
            },
            Connection::Imported(imported) => Self {
                live: true,
                is_proven: false,
                linked_at: Some(imported.imported_at),
                linked_by: imported.imported_by.clone(),
                ..nothing
            },
            Connection::Ended(ended) => {
                let failure = ended.because.map(|reason| Failure {
                    needs_person: true,
                    case: Some(Case::ForeignImport),
                    ..Failure::new(reason, ended.at)
                });
                Self { identity: ended.identity.clone(), failure, ..nothing }
            }
        }
    }

    /// With what soon may stop it: the account's warnings, and its own. What needs to be linked anew has stopped
    /// already, and its failure says so.
    pub(super) fn warned(mut self, mut warnings: Vec<Warning>, now: Timestamp) -> Self {
        let has_stopped = !self.live || self.failure.as_ref().is_some_and(|failure| failure.needs_person);
        let grant_expires_by = self.grant_expires_by.filter(|_| !has_stopped);
        warnings.extend(grant_expires_by.and_then(|at| warning_of_grant(at, now)));
        self.warnings = warnings;
        self
    }

    pub(super) fn damaged(key: ConnectionKey, reason: Reason) -> Self {
        let failure = Some(Failure::new(reason, Timestamp::UNIX_EPOCH));
        Self { live: true, failure, ..Self::nobody(key) }
    }
}
