//! Linking as people do it: the page, the button, the sign-in, the way back.

use azdo_broker::pb;

use super::{Browser, CLIENT_ID, Page, SECRET, TENANT, TestApp, assert_refused, begin_request, developer};

/// A link whose person has signed in; the browser has not gone back yet.
pub(crate) struct SignedIn {
    pub(crate) id: String,
    pub(crate) link_url: String,
    pub(crate) browser: Browser,
    pub(crate) callback: String,
}

/// What the platform's own callback received, as a request to hand it over.
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) request: pb::CompleteLinkRequest,
}

impl TestApp {
    /// The registration of `acme`, as the example world has it.
    pub(crate) fn registration(&self) -> pb::PutIntegrationRequest {
        self.registration_of("acme")
    }

    pub(crate) fn registration_of(&self, account: &str) -> pb::PutIntegrationRequest {
        pb::PutIntegrationRequest {
            account_id: account.into(),
            organization: "contoso".into(),
            tenant_id: TENANT.into(),
            client_id: CLIENT_ID.into(),
            public_url: format!("http://localhost:{}", self.links.port()),
            client_secret: SECRET.into(),
            ..pb::PutIntegrationRequest::default()
        }
    }

    /// Links the service user of `acme` through the pages and confirms it.
    pub(crate) async fn link(&self, upn: &str) -> pb::Connection {
        let (id, _) = self.verified(upn).await;
        self.operator().await.confirm(&id).await.unwrap()
    }

    /// Links the service user of another account.
    pub(crate) async fn link_of(&self, account: &str, upn: &str) -> pb::Connection {
        let request = pb::BeginLinkRequest { account_id: account.into(), ..begin_request() };
        let mut signed_in = self.signed_in_for(request, upn).await;
        signed_in.come_back().await;
        let request = pb::ConfirmLinkRequest {
            account_id: account.into(),
            link_id: signed_in.id,
            ..pb::ConfirmLinkRequest::default()
        };
        self.operator().await.connections().confirm_link(request).await.unwrap().into_inner()
    }

    /// Links without looking at the link: what it replaces is what the page showed.
    pub(crate) async fn link_unlooked(&self, upn: &str) -> pb::Connection {
        let mut signed_in = self.signed_in(upn).await;
        signed_in.come_back().await;
        self.operator().await.confirm(&signed_in.id).await.unwrap()
    }

    /// A verified link and the page that said so.
    pub(crate) async fn verified(&self, upn: &str) -> (String, Page) {
        let mut signed_in = self.signed_in(upn).await;
        let page = signed_in.come_back().await;
        assert_eq!(page.status, 200, "{}", page.body);
        let link = self.operator().await.link(&signed_in.id).await.unwrap();
        assert_eq!(link.state(), pb::LinkState::Verified, "{link:?}");
        (signed_in.id, page)
    }

    pub(crate) async fn signed_in(&self, upn: &str) -> SignedIn {
        self.signed_in_for(begin_request(), upn).await
    }

    pub(crate) async fn signed_in_for(&self, request: pb::BeginLinkRequest, upn: &str) -> SignedIn {
        let (id, link_url, browser, authorize_url) = self.entered(request).await;
        let callback = self.emulator.sign_in(&authorize_url, upn).await.unwrap();
        SignedIn { id, link_url, browser, callback }
    }

    /// A link whose person declined at Entra.
    pub(crate) async fn declined(&self) -> SignedIn {
        let (id, link_url, browser, authorize_url) = self.entered(begin_request()).await;
        let callback = self.emulator.decline(&authorize_url).await.unwrap();
        SignedIn { id, link_url, browser, callback }
    }

    /// A link whose person pressed the button: id, link URL, browser, and where it was sent.
    pub(crate) async fn entered(&self, request: pb::BeginLinkRequest) -> (String, String, Browser, String) {
        let begun = self.operator().await.begin_with(request).await.unwrap();
        let mut browser = Browser::new();
        assert_eq!(browser.get(&begun.link_url).await.status, 200);
        let page = browser.post(&begun.link_url).await;
        let authorize_url = page.location().to_owned();
        (begun.link_id, begun.link_url, browser, authorize_url)
    }

    /// Links a developer of `acme` by the platform's pages.
    pub(crate) async fn link_developer(&self, id: &str, upn: &str) -> pb::Connection {
        let operator = self.operator().await;
        let received = self.received(developer(id), upn).await;
        let link = operator.complete(received.request).await.unwrap();
        assert_eq!(link.state(), pb::LinkState::Verified, "{link:?}");
        operator.confirm(&received.id).await.unwrap()
    }

    /// A link by the platform's pages whose person signed in; nothing was handed over yet.
    pub(crate) async fn received(&self, name: pb::ConnectionName, upn: &str) -> Received {
        let request = pb::BeginLinkRequest {
            connection: Some(name),
            front: pb::Front::PlatformPages.into(),
            ..begin_request()
        };
        let begun = self.operator().await.begin_with(request).await.unwrap();
        let callback = self.emulator.sign_in(&begun.authorize_url, upn).await.unwrap();
        let callback = reqwest::Url::parse(&callback).unwrap();
        let field = |name: &str| {
            let found = callback.query_pairs().find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        assert_eq!(field("state"), begun.state, "the platform compares it with its session");
        let mut redirect_uri = callback.clone();
        redirect_uri.set_query(None);
        let request = pb::CompleteLinkRequest {
            account_id: "acme".into(),
            redirect_uri: redirect_uri.to_string(),
            state: begun.state,
            code: field("code"),
            error: field("error"),
            error_description: field("error_description"),
        };
        Received { id: begun.link_id, request }
    }

    /// The service user of `acme` is not linked, and never was.
    pub(crate) async fn assert_nothing_linked(&self) {
        let answer = self.operator().await.connection().await;
        assert_refused(answer, tonic::Code::FailedPrecondition, "NOT_LINKED");
        let answer = self.operator().await.token().await;
        assert_refused(answer, tonic::Code::FailedPrecondition, "NOT_LINKED");
    }
}

impl SignedIn {
    /// The browser follows Entra's redirect.
    pub(crate) async fn come_back(&mut self) -> Page {
        self.browser.get(&self.callback).await
    }
}
