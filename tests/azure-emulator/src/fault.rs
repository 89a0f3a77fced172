//! The switches that make the emulator misbehave. Which of them are on, where and until when: `switches`.
//!
//! A switch with a `count` turns itself off after that many answers; the others stay until the
//! faults are cleared. State changes (`user.disable` and so on) are not undone by clearing.

use serde::{Deserialize, Serialize};

/// One switch. In JSON: `{"switch": "entra.429", "retry_after": 5, "count": 1}`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "switch", deny_unknown_fields)]
pub enum Fault {
    /// The token endpoint answers with this error instead of evaluating the request.
    #[serde(rename = "entra.error")]
    EntraError {
        code: u32,
        #[serde(default)]
        error: Option<String>,
        #[serde(default)]
        suberror: Option<String>,
        #[serde(default)]
        claims: Option<String>,
        #[serde(default)]
        http: Option<u16>,
        #[serde(default)]
        count: Option<u32>,
    },
    #[serde(rename = "entra.429")]
    EntraThrottle {
        #[serde(default)]
        retry_after: Option<u64>,
        #[serde(default)]
        count: Option<u32>,
    },
    /// Token requests beyond so many within any one second are answered with 429.
    #[serde(rename = "entra.limit")]
    EntraLimit { per_second: usize },
    #[serde(rename = "entra.5xx")]
    EntraOutage {
        #[serde(default)]
        status: Option<u16>,
        #[serde(default)]
        retry_after: Option<u64>,
        #[serde(default)]
        count: Option<u32>,
    },
    /// Token requests are taken and never answered, nor evaluated, until released.
    #[serde(rename = "entra.hang")]
    EntraHang {
        #[serde(default)]
        count: Option<u32>,
    },
    /// Token requests are evaluated and recorded; their answers wait until released.
    #[serde(rename = "entra.hold")]
    EntraHold {
        #[serde(default)]
        count: Option<u32>,
    },
    /// Token requests are evaluated and recorded; their answers break off in the middle.
    #[serde(rename = "entra.cut")]
    EntraCut {
        #[serde(default)]
        count: Option<u32>,
    },
    /// 200 with a page, as a proxy in between would answer.
    #[serde(rename = "entra.html")]
    EntraHtml {
        #[serde(default)]
        count: Option<u32>,
    },
    /// Claims of the next id tokens, as given.
    #[serde(rename = "entra.id_token")]
    IdToken {
        #[serde(default)]
        tid: Option<String>,
        #[serde(default)]
        aud: Option<String>,
        #[serde(default)]
        nonce: Option<String>,
        #[serde(default)]
        iss: Option<String>,
        /// Unix seconds.
        #[serde(default)]
        exp: Option<i64>,
        #[serde(default)]
        bad_signature: bool,
        #[serde(default)]
        count: Option<u32>,
    },
    /// 404 with nothing in it.
    #[serde(rename = "entra.404_empty")]
    EntraNothing {
        #[serde(default)]
        count: Option<u32>,
    },
    /// The scopes of an answer come in another order, with those of `OpenID` among them.
    #[serde(rename = "entra.scope_reordered")]
    ScopeReordered {},
    /// Answers say when to refresh.
    #[serde(rename = "entra.refresh_in")]
    RefreshIn { seconds: u64 },
    #[serde(rename = "entra.no_refresh_token")]
    NoRefreshToken {
        #[serde(default)]
        count: Option<u32>,
    },
    /// The lifetime of new access tokens.
    #[serde(rename = "entra.expires_in")]
    ExpiresIn { seconds: u64 },
    /// `expires_in` is a text, as some answers of Entra had it.
    #[serde(rename = "entra.expires_in_text")]
    ExpiresInText {},
    /// A refresh uses its refresh token up; whoever comes with it again revokes all that came
    /// from the same sign-in. Entra does not do so; other providers do.
    #[serde(rename = "entra.strict_rotation")]
    StrictRotation {},
    /// New tokens are signed with a new key; the old one stays published.
    #[serde(rename = "entra.rotate_keys")]
    RotateKeys {},
    /// Discovery and keys answer 503.
    #[serde(rename = "entra.discovery_5xx")]
    DiscoveryOutage {
        #[serde(default)]
        count: Option<u32>,
    },
    /// `login_hint` signs that user in without a page.
    #[serde(rename = "entra.automatic")]
    AutomaticSignIn {},
    /// How Azure DevOps refuses a bad token: 401, 203 or 302. `always` says so even to those
    /// who sent `X-TFS-FedAuthRedirect: Suppress`.
    #[serde(rename = "ado.signin_mode")]
    SignInMode {
        status: u16,
        #[serde(default)]
        always: bool,
    },
    /// 429, or with `delayed` a 200 which asks to slow down.
    #[serde(rename = "ado.throttle")]
    DevopsThrottle {
        #[serde(default)]
        retry_after: Option<u64>,
        #[serde(default)]
        delayed: bool,
        #[serde(default)]
        count: Option<u32>,
    },
    /// Each identity has so many requests in any five minutes, of REST and git together. Answers to REST tell
    /// what is left once half is used; beyond it comes 429.
    #[serde(rename = "ado.limit")]
    DevopsLimit { limit: usize },
    /// Azure DevOps (REST and git) answers with this status and a page.
    #[serde(rename = "ado.5xx")]
    DevopsOutage {
        #[serde(default)]
        status: Option<u16>,
        #[serde(default)]
        count: Option<u32>,
    },
    /// Azure DevOps answers with this error, such as 403 VS403463.
    #[serde(rename = "ado.error")]
    DevopsError {
        status: u16,
        message: String,
        type_key: String,
        #[serde(default)]
        count: Option<u32>,
    },
    /// 403 VS403463, on REST and git.
    #[serde(rename = "ado.vs403463")]
    ConditionalAccess {
        #[serde(default)]
        count: Option<u32>,
    },
    /// 401 TF400813 in answer to good tokens of members.
    #[serde(rename = "ado.tf400813")]
    NotAuthorized {
        #[serde(default)]
        count: Option<u32>,
    },
    /// 403 with the page of the edge.
    #[serde(rename = "ado.edge_blocked_html")]
    EdgeBlocked {
        #[serde(default)]
        count: Option<u32>,
    },
    /// Which challenge accompanies a 401.
    #[serde(rename = "ado.challenge")]
    Challenge { kind: ChallengeKind },
    /// A token of another tenant is throttled instead of refused.
    #[serde(rename = "ado.throttle_wrong_tenant")]
    ThrottleWrongTenant {
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// Answers of REST end after so many bytes: the connection is cut, or with `cleanly` the
    /// body ends as if that were all. `path`: only requests whose path contains it.
    #[serde(rename = "ado.truncate")]
    Truncate {
        bytes: usize,
        #[serde(default)]
        cleanly: bool,
        #[serde(default)]
        path: Option<String>,
        #[serde(default)]
        count: Option<u32>,
    },
    /// Answers of Azure DevOps (REST and git) are ready, and wait until released.
    #[serde(rename = "ado.hold")]
    DevopsHold {
        #[serde(default)]
        path: Option<String>,
        #[serde(default)]
        count: Option<u32>,
    },
    /// Every page of projects and refs announces another one.
    #[serde(rename = "ado.endless_pages")]
    EndlessPages {},
    #[serde(rename = "ado.hang")]
    DevopsHang {
        #[serde(default)]
        count: Option<u32>,
    },
    /// Lists leave out repositories that the caller may not read.
    #[serde(rename = "ado.hide_denied")]
    HideDenied {},
    /// Git speaks protocol version 2 when asked to.
    #[serde(rename = "git.v2")]
    GitV2 {},
    /// Whether uploads must name `multi_ack` in their capabilities; they must, unless told.
    #[serde(rename = "git.require_multi_ack")]
    RequireMultiAck { on: bool },
    /// The user has a new password: refresh tokens live on, unless `revokes`.
    #[serde(rename = "user.password_changed")]
    PasswordChanged {
        upn: String,
        #[serde(default)]
        revokes: bool,
    },
    /// The organization is connected to no directory any more.
    #[serde(rename = "org.disconnect")]
    Disconnect { organization: String },
    /// All refresh tokens of the user so far are refused (50173).
    #[serde(rename = "user.revoke")]
    UserRevoke { upn: String },
    #[serde(rename = "user.disable")]
    UserDisable { upn: String },
    #[serde(rename = "user.enable")]
    UserEnable { upn: String },
    /// The user's consent is gone (65001), until the next sign-in.
    #[serde(rename = "consent.delete")]
    ConsentDelete { upn: String },
    /// All secrets of the app expire now.
    #[serde(rename = "secret.expire")]
    SecretExpire { client_id: String },
}

/// A form of the `WWW-Authenticate` headers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChallengeKind {
    /// As today.
    Aad,
    /// Of an organization without a directory.
    Msa,
    /// With the former host of sign-ins.
    Old,
}

impl Fault {
    /// The next token request is answered with this AADSTS code in its usual form.
    pub fn next_error(code: u32) -> Self {
        let (error, suberror, claims, http) = (None, None, None, None);
        Self::EntraError { code, error, suberror, claims, http, count: Some(1) }
    }

    pub(crate) fn count(&self) -> Option<u32> {
        match self {
            Self::EntraError { count, .. }
            | Self::EntraThrottle { count, .. }
            | Self::EntraOutage { count, .. }
            | Self::EntraHang { count }
            | Self::EntraHold { count }
            | Self::EntraCut { count }
            | Self::EntraHtml { count }
            | Self::IdToken { count, .. }
            | Self::NoRefreshToken { count }
            | Self::DevopsThrottle { count, .. }
            | Self::DevopsOutage { count, .. }
            | Self::DevopsError { count, .. }
            | Self::DiscoveryOutage { count }
            | Self::EntraNothing { count }
            | Self::ConditionalAccess { count }
            | Self::NotAuthorized { count }
            | Self::EdgeBlocked { count }
            | Self::Truncate { count, .. }
            | Self::DevopsHold { count, .. }
            | Self::DevopsHang { count } => *count,
            Self::EntraLimit { .. }
            | Self::DevopsLimit { .. }
            | Self::ExpiresIn { .. }
            | Self::ExpiresInText {}
            | Self::RotateKeys {}
            | Self::StrictRotation {}
            | Self::AutomaticSignIn {}
            | Self::SignInMode { .. }
            | Self::HideDenied {}
            | Self::GitV2 {}
            | Self::ScopeReordered {}
            | Self::RefreshIn { .. }
            | Self::Challenge { .. }
            | Self::ThrottleWrongTenant { .. }
            | Self::EndlessPages {}
            | Self::RequireMultiAck { .. }
            | Self::PasswordChanged { .. }
            | Self::Disconnect { .. }
            | Self::UserRevoke { .. }
            | Self::UserDisable { .. }
            | Self::UserEnable { .. }
            | Self::ConsentDelete { .. }
            | Self::SecretExpire { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_named_as_in_the_contract() {
        let text = r#"{"switch":"entra.error","code":700082,"suberror":"bad_token","count":1}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();

        assert!(matches!(fault, Fault::EntraError { code: 700_082, count: Some(1), .. }));
        assert!(serde_json::from_str::<Fault>(r#"{"switch":"git.v2","x":1}"#).is_err());
    }
}
