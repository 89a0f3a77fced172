//! Names that were checked once, at the edge, and are trusted everywhere else.
//!
//! Every type here has one constructor, `FromStr`, and shows its text by `as_str`. What does not
//! parse becomes an [`InvalidName`] that repeats nothing of the input but its length.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is not the name it was given for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidName {
    #[error("must not be empty")]
    Empty,
    #[error("is {len} bytes long, at most {max} are allowed")]
    TooLong { len: usize, max: usize },
    #[error("may hold only {allowed}")]
    Character { allowed: &'static str },
    #[error("is not a GUID such as 499b84ac-1321-427f-aa17-267ca6975798")]
    Guid,
    #[error(
        "is not a delegated permission of Azure DevOps: user_impersonation, or a granular one such as vso.code"
    )]
    DevopsScope,
    #[error("is not an Azure DevOps organization name: letters, digits and inner hyphens, at most 50")]
    Organization,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                $check(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A customer of the platform: `acme`.
    AccountId,
    plain
);
name!(
    /// A person of the platform who links for themself: `ana`, `ana@acme.example`.
    DeveloperId,
    plain
);
name!(
    /// One link process. Unguessable, but no secret: it names a page.
    LinkId,
    plain
);
name!(
    /// One client credential of an integration.
    CredentialId,
    plain
);
name!(
    /// A source of assertions that the configuration names.
    SourceName,
    plain
);
name!(
    /// A delegated permission of Azure DevOps: `user_impersonation`, `vso.code` (azure.md 1.5).
    DevopsScope,
    devops_scope
);
name!(
    /// The store this process works on; part of what every sealed record is bound to.
    StoreId,
    plain
);
name!(
    /// A data key of the keyring.
    KeyId,
    plain
);
name!(
    /// An Azure DevOps organization, as in `dev.azure.com/{organization}`; lower case, since Azure
    /// DevOps compares without case.
    Organization,
    organization
);
name!(
    /// A directory of Entra ID, as its GUID in lower case.
    TenantId,
    guid
);
name!(
    /// An app registration, as its GUID in lower case.
    ClientId,
    guid
);
name!(
    /// A user or service principal in a tenant, as its GUID in lower case.
    ObjectId,
    guid
);
name!(
    /// A free text a caller adds for the audit: an actor, a purpose. Recorded, never trusted.
    Label,
    label
);

/// Grows with each refresh, link and disconnect of a connection and never repeats (design.md 6.2).
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize,
)]
pub struct Generation(pub i64);

impl Generation {
    #[must_use]
    /// The next generation: past this one, and past every one a lost database may have had,
    /// because it follows the store's clock.
    pub fn next(self, store_now: jiff::Timestamp) -> Self {
        Self(self.0.saturating_add(1).max(store_now.as_microsecond()))
    }
}

fn plain(text: &str) -> Result<Arc<str>, InvalidName> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@+:".contains(c);
    sized(text, NAME_LEN_MAX)?;
    if text.chars().all(allowed) {
        Ok(text.into())
    } else {
        Err(InvalidName::Character { allowed: "letters, digits and -_.@+:" })
    }
}

fn label(text: &str) -> Result<Arc<str>, InvalidName> {
    sized(text, LABEL_LEN_MAX)?;
    if text.chars().any(char::is_control) {
        return Err(InvalidName::Character { allowed: "printable characters" });
    }
    Ok(text.into())
}

fn organization(text: &str) -> Result<Arc<str>, InvalidName> {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    sized(text, ORGANIZATION_LEN_MAX)?;
    let edges = !text.starts_with('-') && !text.ends_with('-') && !text.contains("--");
    if edges && text.chars().all(inner) {
        Ok(text.to_ascii_lowercase().into())
    } else {
        Err(InvalidName::Organization)
    }
}

/// The list of granular permissions grows; what Entra does not know, it refuses by name.
fn devops_scope(text: &str) -> Result<Arc<str>, InvalidName> {
    sized(text, SCOPE_LEN_MAX)?;
    let word =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let granular = text.strip_prefix("vso.").is_some_and(word);
    if granular || text == "user_impersonation" { Ok(text.into()) } else { Err(InvalidName::DevopsScope) }
}

fn guid(text: &str) -> Result<Arc<str>, InvalidName> {
    let hyphen_at = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let shaped = text.len() == GUID_LEN
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| (byte == b'-') == hyphen_at(at) && (byte == b'-' || byte.is_ascii_hexdigit()));
    if shaped { Ok(text.to_ascii_lowercase().into()) } else { Err(InvalidName::Guid) }
}

fn sized(text: &str, max: usize) -> Result<(), InvalidName> {
    match text.len() {
        0 => Err(InvalidName::Empty),
        len if max < len => Err(InvalidName::TooLong { len, max }),
        _ => Ok(()),
    }
}

/// Long enough for an e-mail address, short enough for every log line and key.
const NAME_LEN_MAX: usize = 128;
/// A sentence, not a document.
const LABEL_LEN_MAX: usize = 256;
/// The longest known has 27.
const SCOPE_LEN_MAX: usize = 64;
/// Azure DevOps' own limit.
const ORGANIZATION_LEN_MAX: usize = 50;
const GUID_LEN: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a27_hostile_names_do_not_parse() {
        let long = "x".repeat(10_000);
        for hostile in [
            "",
            "..",
            "%2e%2e%2f",
            "a/b",
            "a?x=",
            "a#",
            "@evil/",
            "a\r\nHost:",
            "a\0b",
            "' OR 1=1--",
            "a b",
            "\u{202e}acme",
            "аcme",
            long.as_str(),
        ] {
            assert!(hostile.parse::<Organization>().is_err(), "{hostile:?}");
            assert!(hostile.parse::<TenantId>().is_err(), "{hostile:?}");
            if hostile != ".." {
                assert!(hostile.parse::<AccountId>().is_err(), "{hostile:?}");
            }
        }
    }

    #[test]
    fn a_scope_is_one_permission_of_azure_devops() {
        for scope in ["user_impersonation", "vso.code", "vso.code_write", "vso.security_manage"] {
            assert_eq!(scope.parse::<DevopsScope>().unwrap().as_str(), scope);
        }
        for hostile in
            ["", "vso.", "VSO.code", "vso.code vso.build", ".default", "openid", "x/vso.code", "vso.code.x"]
        {
            assert!(hostile.parse::<DevopsScope>().is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn guids_and_organizations_compare_without_case() {
        let upper: TenantId = "499B84AC-1321-427F-AA17-267CA6975798".parse().unwrap();
        assert_eq!(upper.as_str(), "499b84ac-1321-427f-aa17-267ca6975798");
        let organization: Organization = "Contoso".parse().unwrap();
        assert_eq!(organization.as_str(), "contoso");
    }

    #[test]
    fn a_generation_grows_even_when_the_clock_went_back() {
        let early = jiff::Timestamp::from_second(1).unwrap();
        let known = Generation(5_000_000);
        assert_eq!(known.next(early), Generation(5_000_001));
        let late = jiff::Timestamp::from_second(10).unwrap();
        assert_eq!(known.next(late), Generation(10_000_000));
    }
}
