//! What one of Entra's codes asks of whom: the finer half of [`reason`](crate::reason).
//!
//! A reason says which kind of person must act; these sentences say what exactly, where the code tells
//! (azure.md 1.9 and 5.6). Codes may change meaning, so nothing is decided by them here: a code without a
//! sentence is told by its reason alone.

use crate::reason::Actor;

/// What is in the way where neither a reason nor a code names the right act.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// Azure DevOps refuses an identity it knows, or the address we come from.
    DevopsPolicy,
    /// An import proved to be somebody else's and was ended.
    ForeignImport,
    /// Entra sent no `id_token` for an imported grant.
    ImportWithoutIdToken,
    /// What Entra signed cannot be verified, or not by our clock.
    IdTokenUnproven,
    /// The app itself is not connected, which nobody links.
    NoServicePrincipal,
    /// Azure DevOps knows no such organization.
    Organization,
    /// The file of a federated source is not there or not usable.
    SourceUnusable,
}

impl Case {
    #[cfg(test)]
    pub const ALL: [Self; 7] = [
        Self::DevopsPolicy,
        Self::ForeignImport,
        Self::ImportWithoutIdToken,
        Self::IdTokenUnproven,
        Self::NoServicePrincipal,
        Self::Organization,
        Self::SourceUnusable,
    ];

    pub fn who_acts(self) -> Actor {
        match self {
            Self::DevopsPolicy => Actor::CustomerAdmin,
            Self::ForeignImport | Self::ImportWithoutIdToken => Actor::Caller,
            Self::NoServicePrincipal | Self::Organization => Actor::PlatformAdmin,
            Self::IdTokenUnproven | Self::SourceUnusable => Actor::Operator,
        }
    }

    /// What that somebody must do, as one sentence.
    pub fn what_to_do(self) -> &'static str {
        match self {
            Self::DevopsPolicy => {
                "An administrator of the Azure DevOps organization must let its policies admit the identity and the broker's address."
            }
            Self::ForeignImport => {
                "Import the grant of the expected person, or link the connection; the one that was imported is somebody else's."
            }
            Self::ImportWithoutIdToken => {
                "Link the connection, or import a grant that was asked for with openid and profile."
            }
            Self::IdTokenUnproven => {
                "The operator must see that the broker's clock is right and that entra.authority is Entra's own; it is tried again by itself."
            }
            Self::NoServicePrincipal => {
                "Whoever registered the integration must connect the app with ConnectServicePrincipal (azdo-broker connections connect-service-principal)."
            }
            Self::Organization => "Whoever registered the integration must correct the organization's name.",
            Self::SourceUnusable => {
                "The operator must see that the federated source's file holds a valid assertion that the broker may read; links stay and resume by themselves."
            }
        }
    }
}

/// Who must do what about this AADSTS code, as one sentence.
pub fn of(code: u32) -> Option<&'static str> {
    REMEDIES.iter().find(|(codes, _)| codes.contains(&code)).map(|(_, sentence)| *sentence)
}

/// Where each grant works once and an answer with the next one did not arrive.
pub const GRANT_LOST: &str = "Link again: the answer with the next grant was lost, and this identity provider takes a grant only once (entra.rotation = \"strict\").";

#[rustfmt::skip]
const REMEDIES: &[(&[u32], &str)] = &[
    (&[50_001, 500_011, 650_052], "An Entra administrator must add Azure DevOps to the tenant: its enterprise application is missing there."),
    (&[50_011, 500_112, 900_971], "Whoever registered the app must add the integration's redirect URIs to it, byte for byte (platform Web)."),
    (&[50_012, 700_023, 700_024, 700_027, 700_030], "Whoever registered the integration must enter a certificate that the app registration has, still valid; the broker's clock must be right."),
    (&[50_014, 50_020, 51_004, 90_072], "Sign in with an account of the integration's tenant, or have its administrator invite this account as a guest."),
    (&[50_034], "The account was deleted: link again with another account."),
    (&[50_049, 50_059, 50_128, 90_002], "Whoever registered the integration must correct the tenant id: Entra knows no such tenant."),
    (&[50_053], "The account is locked after failed sign-ins: an Entra administrator must unlock it."),
    (&[50_055, 50_135, 50_144], "The account's password has expired: change it, then link again."),
    (&[50_057], "An Entra administrator must enable the account; the connection then resumes by itself."),
    (&[50_072, 50_074, 50_076, 50_078, 50_079, 50_158], "Entra asks for a second factor: link again and pass it, and have an administrator exempt accounts that work unattended, which cannot answer it later."),
    (&[50_097, 50_131, 50_132, 50_133, 53_000, 53_001, 53_002], "A Conditional Access policy asks for a known device: an Entra administrator must exempt the app or the account."),
    (&[50_105], "An Entra administrator must assign the account to the enterprise application."),
    (&[50_173], "The sessions of the account were revoked: link again."),
    (&[50_194], "Whoever registered the app must make it multitenant, or give the integration the app's own tenant."),
    (&[50_196], "Entra saw too many requests of one kind; the broker waits a minute by itself."),
    (&[53_003, 53_004, 530_032, 530_034, 530_035], "A Conditional Access policy blocks the sign-in: an Entra administrator must exempt the app or allow the broker's address."),
    (&[53_010, 53_011], "Entra holds the account at risk: an Entra administrator must clear it, then the connection resumes by itself."),
    (&[54_005], "The sign-in was used already: begin the link again."),
    (&[65_001], "An Entra administrator must consent to the app anew: its consent is missing or was taken back."),
    (&[65_004], "The consent was declined: begin the link again and accept, or ask an Entra administrator to consent."),
    (&[65_005, 650_053, 650_054, 650_056, 650_057], "Whoever registered the app must add the delegated permission user_impersonation of Azure DevOps to it."),
    (&[70_001, 700_016], "The app is not known in the tenant: an Entra administrator must consent to it there, or whoever registered the integration must correct client id and tenant id."),
    (&[70_008], "The sign-in took too long: begin the link again."),
    (&[70_043], "A sign-in frequency policy ended the session: link again, and have an Entra administrator exempt the app, or it ends again."),
    (&[700_054, 700_084, 9_002_326, 9_002_327, 9_002_332], "Whoever registered the app must set its platform to Web."),
    (&[700_082], "The grant was not used for 90 days: link again."),
    (&[700_211, 700_212, 700_213, 70_021], "Whoever registered the app must add a federated credential with the assertion's issuer, subject and audience."),
    (&[7_000_112], "An Entra administrator must enable the enterprise application."),
    (&[7_000_215], "Whoever registered the integration must enter the secret's Value; this one is wrong, or it is the secret's id."),
    (&[7_000_222], "The client secret has expired: whoever registered the integration must enter a new one."),
    (&[7_000_229], "An Entra administrator must create the app's service principal in the tenant, by consenting to the app."),
    (&[90_094, 90_095], "The tenant lets only administrators consent: an Entra administrator must consent to the app."),
    (&[90_099, 1_000_031], "An Entra administrator must allow the app in the tenant."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    #[test]
    fn a_remedy_is_one_sentence_for_codes_that_are_named_once() {
        let mut seen = std::collections::HashSet::new();
        for (codes, sentence) in REMEDIES {
            assert!(sentence.ends_with('.') && !sentence.contains("AADSTS"), "{sentence}");
            assert!(codes.iter().all(|code| seen.insert(code)), "{codes:?} is named twice");
        }
        assert!(of(65_001).is_some() && of(123).is_none());
    }

    /// Design.md 4.1: who asks for one role learns nothing of the other, in no sentence that both may see.
    #[test]
    fn no_remedy_speaks_of_a_role_that_the_caller_may_not_have_asked_for() {
        // What is asked of a developer's caller alone.
        let exceptions = [Reason::DeveloperAssertionRejected, Reason::DeveloperAssertionRequired];
        let reasons = Reason::ALL.into_iter().filter(|reason| !exceptions.contains(reason));
        let codes = REMEDIES.iter().map(|(_, sentence)| *sentence);
        let cases = Case::ALL.into_iter().map(Case::what_to_do);
        for sentence in reasons.map(Reason::what_to_do).chain(codes).chain(cases).chain([GRANT_LOST]) {
            let lower = sentence.to_lowercase();
            assert!(!lower.contains("service user") && !lower.contains("developer"), "{sentence}");
        }
    }
}
