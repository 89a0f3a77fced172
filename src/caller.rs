//! The workload that calls us, known by its certificate or by the socket it came through.
//!
//! Never by what it says of itself, never by a common name (design.md 6.10, 6.11).

use std::fmt;
use std::sync::Arc;

/// Who calls. Its text is what policy rules, audit and logs use.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Caller {
    /// The one URI name of the client certificate: `spiffe://platform.example/ide-backend`.
    Uri(Arc<str>),
    /// The DNS name of the client certificate, where it has no URI name.
    Dns(Arc<str>),
    /// The configured name of the Unix socket, and the peer's uid as the kernel tells it.
    Socket { name: Arc<str>, uid: u32 },
}

impl Caller {
    /// What a policy rule names: for a socket its name, whoever of its group of uids came through.
    pub fn policy_name(&self) -> String {
        match self {
            Self::Uri(uri) => uri.to_string(),
            Self::Dns(name) => format!("dns:{name}"),
            Self::Socket { name, .. } => format!("socket:{name}"),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(_) | Self::Dns(_) => f.write_str(&self.policy_name()),
            Self::Socket { name, uid } => write!(f, "socket:{name} (uid {uid})"),
        }
    }
}

impl serde::Serialize for Caller {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Caller {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a caller"))
    }
}

impl Caller {
    /// Reads what `Display` wrote.
    fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("dns:") {
            return Some(Self::Dns(name.into()));
        }
        let Some(socket) = text.strip_prefix("socket:") else {
            return Some(Self::Uri(text.into()));
        };
        let (name, uid) = socket.strip_suffix(')')?.split_once(" (uid ")?;
        Some(Self::Socket { name: name.into(), uid: uid.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_survives_its_text() {
        for caller in [
            Caller::Uri("spiffe://platform.example/ide".into()),
            Caller::Dns("ide.platform.example".into()),
            Caller::Socket { name: "job-runner".into(), uid: 1000 },
        ] {
            assert_eq!(Caller::parse(&caller.to_string()), Some(caller));
        }
    }
}
