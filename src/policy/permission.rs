//! What a caller may be allowed to do: the words of a rule's `allow`.
//!
//! Invariant: every permission has one text, and [`Permission::ALL`] has every permission. Which method
//! needs which permission is the use cases' business.

/// One thing a rule can allow.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Permission {
    ReleaseServiceUser,
    ReleaseDeveloper,
    Git,
    Repos,
    Report,
    Link,
    ConnectionsRead,
    Disconnect,
    ConnectServicePrincipal,
    Import,
    IntegrationsRead,
    IntegrationsWrite,
    Suspend,
    Operate,
    Reflect,
}

impl Permission {
    pub const ALL: [Self; 15] = [
        Self::ReleaseServiceUser,
        Self::ReleaseDeveloper,
        Self::Git,
        Self::Repos,
        Self::Report,
        Self::Link,
        Self::ConnectionsRead,
        Self::Disconnect,
        Self::ConnectServicePrincipal,
        Self::Import,
        Self::IntegrationsRead,
        Self::IntegrationsWrite,
        Self::Suspend,
        Self::Operate,
        Self::Reflect,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReleaseServiceUser => "release.service_user",
            Self::ReleaseDeveloper => "release.developer",
            Self::Git => "git",
            Self::Repos => "repos",
            Self::Report => "report",
            Self::Link => "link",
            Self::ConnectionsRead => "connections.read",
            Self::Disconnect => "disconnect",
            Self::ConnectServicePrincipal => "connect.service_principal",
            Self::Import => "import",
            Self::IntegrationsRead => "integrations.read",
            Self::IntegrationsWrite => "integrations.write",
            Self::Suspend => "suspend",
            Self::Operate => "operate",
            Self::Reflect => "reflect",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == text)
    }

    /// Whether it is about the broker itself and no account.
    pub fn is_about_broker(self) -> bool {
        match self {
            Self::Operate | Self::Reflect => true,
            Self::ReleaseServiceUser
            | Self::ReleaseDeveloper
            | Self::Git
            | Self::Repos
            | Self::Report
            | Self::Link
            | Self::ConnectionsRead
            | Self::Disconnect
            | Self::ConnectServicePrincipal
            | Self::Import
            | Self::IntegrationsRead
            | Self::IntegrationsWrite
            | Self::Suspend => false,
        }
    }
}

/// The permissions of one rule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Permissions(u32);

impl Permissions {
    pub(super) fn all() -> Self {
        let mut all = Self::default();
        for permission in Permission::ALL {
            all.insert(permission);
        }
        all
    }

    pub(super) fn insert(&mut self, permission: Permission) {
        self.0 |= Self::bit(permission);
    }

    pub(super) fn contains(self, permission: Permission) -> bool {
        self.0 & Self::bit(permission) != 0
    }

    fn bit(permission: Permission) -> u32 {
        1 << (permission as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_survives_its_text_and_is_told_from_the_others() {
        for permission in Permission::ALL {
            assert_eq!(Permission::parse(permission.as_str()), Some(permission));
            let mut one = Permissions::default();
            one.insert(permission);
            let contained = Permission::ALL.into_iter().filter(|other| one.contains(*other));
            assert_eq!(contained.collect::<Vec<_>>(), [permission]);
        }
        assert_eq!(Permission::parse("Git"), None);
        assert_eq!(Permission::parse("*"), None);
    }
}
