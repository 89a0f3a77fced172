//! Proving an import: one refresh, then whose it is. Until then nothing of it is released.
//!
//! # Invariants
//!
//! 1. What the refresh brought is sealed before anybody looks at it (P4); a proof that a dead process left
//!    goes on from there and spends nothing.
//! 2. Only an identity of the integration's tenant, known to its organization, and the expected one if one
//!    is expected, becomes a connection (P7). Another one, verified, ends the import; what cannot be
//!    verified, or not any more, is tried again: an administrator may take days (P4).
//! 3. Whose it proved to be, and that it ended, is recorded before it is so (P3).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Refresh;
use super::not_linked;
use super::refresh::{RESCUED_PAUSE, RETRY_STORE, SLOW};
use super::setback::Setback;
use super::spend::Unspent;
use crate::budgets::Urgency;
use crate::clock::later;
use crate::connection::{Identity, Seen};
use crate::entra::IdTokenError;
use crate::event::{By, Event, Outcome};
use crate::identify::{SignIn, Unidentified};
use crate::ids::ObjectId;
use crate::reason::{Problem, Reason};
use crate::remedy::Case;
use crate::vault::{
    Connection, Ended, Held, Hold, ImportLease, Imported, Integration, Live, make_keep_alive_at,
};

impl Refresh {
    /// Proves an import, as far as it can be now.
    pub(super) async fn prove(&self, lease: ImportLease, urgency: &watch::Receiver<Urgency>) {
        let ImportLease { mut hold, mut imported } = lease;
        let integration = match self.integration(&hold).await {
            Ok(integration) => integration,
            Err(setback) => return self.set_back(&hold, setback).await,
        };
        loop {
            let was_held = imported.held.is_some();
            let Some(landed) = self.hold_import(hold, imported, &integration, urgency).await else {
                return;
            };
            (hold, imported) = landed;
            match self.whose(&imported, &integration).await {
                // What was held for an administrator is too old to tell anything; the grant is not.
                Err(Unidentified::Unproven(IdTokenError::Expired)) if was_held => imported.held = None,
                whose => return self.judge_import(&hold, imported, whose).await,
            }
        }
    }

    /// Only what is certain ends an import: the rest is asked again, whoever must act first (P4).
    async fn judge_import(&self, hold: &Hold, imported: Imported, whose: Result<Identity, Unidentified>) {
        let (problem, pause) = match whose {
            Ok(identity)
                if imported.expected_object_id.as_ref().is_none_or(|it| *it == identity.object_id) =>
            {
                return self.connect(hold, imported, identity).await;
            }
            Ok(identity) => return self.end_import(hold, &imported, Some(identity.object_id)).await,
            Err(Unidentified::Another) => return self.end_import(hold, &imported, None).await,
            Err(Unidentified::No(problem)) => (problem, SLOW),
            Err(Unidentified::Unproven(_)) => {
                let detail = "what Entra signed about the imported connection cannot be verified";
                let problem = Problem::new(Reason::UpstreamUnavailable, detail).retry_after(SLOW);
                (problem.case(Case::IdTokenUnproven), SLOW)
            }
            Err(Unidentified::NotNow) => {
                let detail = "it cannot be told now whose the imported connection is";
                (Problem::new(Reason::UpstreamUnavailable, detail).retry_after(PROVE_AGAIN), PROVE_AGAIN)
            }
        };
        self.set_back(hold, self.setback(hold, problem, None, pause)).await;
    }

    pub(super) async fn integration(&self, hold: &Hold) -> Result<Arc<Integration>, Setback> {
        match self.accounts.integration(&hold.key.account).await {
            Ok(Some(integration)) => Ok(integration),
            Ok(None) => Err(self.setback(hold, not_linked(&hold.key), None, SLOW)),
            Err(problem) => Err(self.setback(hold, problem, None, RETRY_STORE)),
        }
    }

    /// Has what a refresh brought sealed in the row, unless it is there already and still good.
    async fn hold_import(
        &self,
        hold: Hold,
        mut imported: Imported,
        integration: &Arc<Integration>,
        urgency: &watch::Receiver<Urgency>,
    ) -> Option<(Hold, Imported)> {
        let now = self.store_now(&hold);
        if imported.held.as_ref().is_some_and(|held| now < held.token.expires_at) {
            return Some((hold, imported));
        }
        let spent = match self.spend(&hold, integration.clone(), Some(&imported.grant), urgency).await {
            Ok(spent) => spent,
            Err(Unspent { setback, rescued: None }) => {
                self.set_back(&hold, setback).await;
                return None;
            }
            Err(Unspent { setback, rescued: Some(grant) }) => {
                let setback = Setback { pause: setback.pause.max(RESCUED_PAUSE), ..setback };
                imported.grant = grant;
                let again = later(now, setback.pause.max(PROVE_AGAIN));
                let connection = Connection::Imported(imported);
                match (self.commit(&hold, &connection, Some(again)).await, setback.accepted.as_ref()) {
                    (Some(generation), _) => self.set_back(&hold.at(generation), setback).await,
                    (None, Some(credential)) => self.note_accepted(&hold, credential).await,
                    (None, None) => {}
                }
                return None;
            }
        };
        imported.held = Some(Held { token: spent.token(), unverified_id_token: spent.answered.id_token });
        if let Some(grant) = spent.answered.refresh {
            imported.grant = grant;
        }
        let connection = Connection::Imported(imported);
        let committed = self.commit(&hold, &connection, Some(later(now, PROVE_AGAIN))).await;
        // True of the credential whoever won.
        self.note_accepted(&hold, &spent.accepted).await;
        let generation = committed?;
        let Connection::Imported(imported) = connection else { unreachable!("it was made above") };
        Some((hold.at(generation), imported))
    }

    async fn whose(&self, imported: &Imported, integration: &Integration) -> Result<Identity, Unidentified> {
        let held = imported.held.as_ref().ok_or(Unidentified::NotNow)?;
        let Some(unverified) = &held.unverified_id_token else {
            let detail = "Entra sent no id_token for the imported grant";
            let problem = Problem::new(Reason::IntegrationMisconfigured, detail);
            return Err(Unidentified::No(problem.case(Case::ImportWithoutIdToken)));
        };
        let sign_in =
            SignIn { unverified, nonce: None, access: &held.token.access, scopes: &held.token.scopes };
        self.identifier.identify(integration, &sign_in).await
    }

    async fn connect(&self, hold: &Hold, imported: Imported, identity: Identity) {
        let Some(brought) = imported.held else { return };
        if !self.record_proof(hold, Outcome::Done, Some(identity.object_id.clone())).await {
            return;
        }
        let connection = Connection::Live(Live {
            identity,
            grant: Some(imported.grant),
            token: Some(brought.token),
            linked_at: imported.imported_at,
            linked_by: imported.imported_by,
            refreshed_at: Some(self.store_now(hold)),
            origin: Some(imported.origin),
        });
        let keep_alive = make_keep_alive_at(hold.store_now);
        if let Some(generation) = self.commit(hold, &connection, Some(keep_alive)).await {
            tracing::info!(connection.key = %hold.key, "an import was proven");
            self.committed(hold, generation, &connection);
        }
    }

    /// Somebody else's grant is nothing to keep: the tombstone wipes it.
    async fn end_import(&self, hold: &Hold, imported: &Imported, whose: Option<ObjectId>) {
        let reason = Reason::LinkMismatch;
        if !self.record_proof(hold, Outcome::Refused { reason: reason.as_str() }, whose).await {
            return;
        }
        let now = self.store_now(hold);
        let origin = Some(imported.origin.clone());
        let ended = Connection::Ended(Ended { at: now, identity: None, because: Some(reason), origin });
        if let Some(generation) = self.commit(hold, &ended, None).await {
            tracing::warn!(
                connection.key = %hold.key, imported.at = %imported.imported_at,
                "an import proved to be somebody else's and was ended"
            );
            self.note_seen(&hold.key, Seen::end(generation)).await;
            self.learn(&hold.key, (generation, Seen::end(generation)), &ended, &hold.store_clock);
            self.tell(&hold.key, not_linked(&hold.key), Duration::ZERO);
        }
    }

    /// Before it is so: what nobody recorded must not be (P3). Who cannot record tries again.
    async fn record_proof(&self, hold: &Hold, outcome: Outcome, whose: Option<ObjectId>) -> bool {
        let mut event = Event::new("import.prove", By::Broker, outcome).about(&hold.key);
        event.generation = Some(hold.next_generation());
        event.object_id = whose;
        let Err(problem) = self.gate.try_record(event).await else { return true };
        self.set_back(hold, self.setback(hold, problem, None, PROVE_AGAIN)).await;
        false
    }
}

/// How soon a proof that could not be finished is tried again.
const PROVE_AGAIN: Duration = Duration::from_secs(30);
