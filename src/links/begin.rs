//! The beginning: a row, a page that says what will be connected, and a browser bound to it.

use std::time::Duration;

use url::Url;

use super::{Found, Links, PageProblem, below, redirect_path};
use crate::accounts::Accounts;
use crate::clock::later;
use crate::connection::{ConnectionKey, Role};
use crate::entra::AuthorizeRequest;
use crate::event::{By, Event, Outcome};
use crate::gate::Asking;
use crate::ids::{AccountId, LinkId, Organization};
use crate::policy::Permission;
use crate::reason::{Problem, Reason, Refused};
use crate::secret::{PkceVerifier, hash_text, make_random_text};
use crate::vault::{Front, Integration, Link, LinkPhase, LinkSecrets, VaultError};

/// What a caller wants to be linked.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub account: AccountId,
    pub role: Role,
    pub front: Front,
    /// The name of a configured return target; front A only.
    pub return_to: Option<String>,
    pub expected_login: Option<String>,
}

/// A link that waits for its person.
pub struct Begun {
    pub id: LinkId,
    pub door: Door,
    pub expires_at: jiff::Timestamp,
}

/// Where the person goes in.
pub enum Door {
    /// Our page.
    LinkUrl(Url),
    /// Entra's sign-in page; the platform binds `state` to its own browser session.
    Authorize { url: Url, state: String },
}

/// What the first page says.
#[derive(Clone, Debug)]
pub struct Shown {
    pub account: AccountId,
    pub organization: Organization,
    pub role: Role,
    pub actor: Option<String>,
    pub expected_login: Option<String>,
}

/// The browser is bound; off to Entra.
#[derive(Debug)]
pub struct Entered {
    /// The value of the browser's cookie: the one it had, or a new one.
    pub cookie: String,
    pub authorize_url: Url,
}

impl Links {
    /// Begins a link of the service user or of a developer, by our pages or the platform's.
    pub async fn begin(&self, asking: Asking, wanted: Wanted) -> Result<Begun, Refused> {
        let parts = &self.0;
        let allowed = parts.gate.allow(&asking, Permission::Link, &wanted.account).await?;
        let key = ConnectionKey { account: allowed.account().clone(), role: wanted.role.clone() };
        let mut event = asking.event(Outcome::Done).about(&key);
        let begun = parts.begin_allowed(&asking, key, wanted).await;
        event.link = begun.as_ref().ok().map(|begun| begun.id.clone());
        // A link whose beginning is not on record is known to nobody, and runs out.
        parts.gate.conclude(event, begun).await
    }

    /// The first page: says what will be connected to what. Stores nothing.
    pub async fn show(&self, id: &LinkId) -> Result<Shown, PageProblem> {
        let Found { link, .. } = self.0.begun(id).await?;
        let integration = self.0.page_integration(&link.key.account).await?;
        Ok(Shown {
            account: link.key.account,
            organization: integration.organization.clone(),
            role: link.key.role,
            actor: link.actor.map(|actor| actor.to_string()),
            expected_login: link.expected_login,
        })
    }

    /// The person goes on: binds the link to this browser and says where to send it. Two clicks of one
    /// browser come to the same.
    pub async fn enter(&self, id: &LinkId, cookie: Option<String>) -> Result<Entered, PageProblem> {
        let cookie = cookie.unwrap_or_else(make_random_text);
        let hash = hash_text(&cookie);
        for _ in 0..CLICKS_MAX {
            let mut found = self.0.begun(id).await?;
            let integration = self.0.page_integration(&found.link.key.account).await?;
            let authorize_url = self.0.authorize_url(&integration, &found.link).ok_or(PageProblem::Over)?;
            let secrets = found.link.secrets.as_mut().ok_or(PageProblem::Over)?;
            match secrets.cookie_hash.replace(hash.clone()) {
                Some(bound) if bound != hash => return Err(PageProblem::OtherBrowser),
                Some(_) => return Ok(Entered { cookie, authorize_url }),
                None => {}
            }
            let mut event = Event::new("link.enter", By::Browser, Outcome::Done).about(&found.link.key);
            event.link = Some(id.clone());
            self.0.gate.record(event).await.map_err(|_| PageProblem::Unavailable)?;
            match self.0.save(&mut found).await {
                Err(VaultError::Changed(_)) => {} // Another click was faster: look again.
                saved => return saved.map(|()| Entered { cookie, authorize_url }).map_err(PageProblem::from),
            }
        }
        Err(PageProblem::Unavailable)
    }
}

impl super::Parts {
    async fn begin_allowed(
        &self,
        asking: &Asking,
        key: ConnectionKey,
        wanted: Wanted,
    ) -> Result<Begun, Refused> {
        let integration = self.integration(&key.account).await?;
        Accounts::check_active(&integration)?;
        let return_to = self.return_to(&integration, &wanted)?;
        if OPEN_LINKS_MAX <= self.vault.open_link_count(&key.account).await? {
            let detail = "too many links of this account are open; they run out after ten minutes";
            return Err(Problem::new(Reason::RateLimited, detail).retry_after(SIGN_IN_WITHIN).into());
        }
        // A code that cannot be exchanged is a person's time lost.
        self.accounts.check_credentials(&integration)?;
        let state = make_random_text();
        let link = Link {
            id: make_random_text().parse().expect("base64url is a name"),
            expires_at: later(self.clock.now().wall, SIGN_IN_WITHIN),
            phase: LinkPhase::Begun,
            front: wanted.front,
            begun_by: asking.caller.clone(),
            actor: asking.actor.clone(),
            expected_login: wanted.expected_login,
            client_id: integration.client_id.clone(),
            redirect_uri: below(&integration.public_url, redirect_path(&key.role)),
            return_to,
            state_hash: hash_text(&state),
            secrets: Some(LinkSecrets {
                state: state.clone(),
                nonce: make_random_text(),
                verifier: PkceVerifier::new(make_random_text()),
                cookie_hash: None,
                confirmation_hash: None,
                grant: None,
                token: None,
                unverified_id_token: None,
            }),
            identity: None,
            replaces: None,
            ended: None,
            key,
        };
        self.vault.insert_link(&link).await?;
        let door = match link.front {
            Front::OurPages => Door::LinkUrl(below(&integration.public_url, &format!("link/{}", link.id))),
            Front::PlatformPages => {
                let url = self.authorize_url(&integration, &link).expect("a link that begins has secrets");
                Door::Authorize { url, state }
            }
        };
        Ok(Begun { id: link.id, door, expires_at: link.expires_at })
    }

    /// Where our last page sends the person. A developer's link by our pages needs it: only the
    /// confirmation that their browser carries there shows that the person who signed in is the one who
    /// is signed in to the platform.
    fn return_to(&self, integration: &Integration, wanted: &Wanted) -> Result<Option<Url>, Refused> {
        match (wanted.front, &wanted.return_to, &wanted.role) {
            (_, _, Role::ServicePrincipal) => {
                Err(Refused::invalid("connection.role", "a service principal is not linked by a person"))
            }
            (Front::PlatformPages, Some(_), _) => {
                Err(Refused::invalid("return_to", "is for links by the broker's own pages"))
            }
            (Front::OurPages, None, Role::Developer(_)) => {
                Err(Refused::invalid("return_to", "is required for a developer's link by our pages"))
            }
            (_, None, _) => Ok(None),
            (Front::OurPages, Some(name), _) => {
                match self.return_targets.url(name, &integration.public_url) {
                    Some(url) => Ok(Some(url)),
                    None => {
                        Err(Refused::invalid("return_to", "is not the name of a configured return target"))
                    }
                }
            }
        }
    }

    /// Entra's sign-in page for this link; `None` once its secrets are wiped.
    fn authorize_url(&self, integration: &Integration, link: &Link) -> Option<Url> {
        let secrets = link.secrets.as_ref()?;
        Some(self.entra.authorize_url(&AuthorizeRequest {
            tenant: &integration.tenant,
            client_id: &link.client_id,
            redirect_uri: &link.redirect_uri,
            scopes: &integration.scopes,
            state: &secrets.state,
            nonce: &secrets.nonce,
            verifier: &secrets.verifier,
        }))
    }

    /// A link of our pages that still waits for its person.
    async fn begun(&self, id: &LinkId) -> Result<Found, PageProblem> {
        let found = self.link(id).await.map_err(PageProblem::from)?.ok_or(PageProblem::Unknown)?;
        if found.link.front != Front::OurPages {
            return Err(PageProblem::Unknown);
        }
        if found.has_expired() {
            return Err(PageProblem::Expired);
        }
        match found.link.phase {
            LinkPhase::Begun => Ok(found),
            LinkPhase::Taken | LinkPhase::Held | LinkPhase::Verified | LinkPhase::Connected => {
                Err(PageProblem::Used)
            }
            LinkPhase::Ended => Err(PageProblem::Over),
        }
    }
}

/// To the callback; checked at use (design.md 4.2).
const SIGN_IN_WITHIN: Duration = Duration::from_mins(10);
/// Per account: people link one by one, and each open link holds a row.
const OPEN_LINKS_MAX: usize = 100;
/// A double click, and one more.
const CLICKS_MAX: usize = 3;
