//! A look at a tenant: is it there, and what time is it at Entra? For people who check a registration.

use jiff::Timestamp;

use super::Entra;
use crate::ids::TenantId;
use crate::outgoing::{Answer, Limits, OutgoingError, under};

/// What a tenant's discovery document says besides itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    pub is_there: bool,
    /// Entra's `Date`, to the second.
    pub at: Option<Timestamp>,
}

impl Entra {
    /// Looks whether Entra answers, knows the tenant, and what its clock says.
    pub async fn look(&self, tenant: &TenantId) -> Result<Seen, Looked> {
        let document = [tenant.as_str(), "v2.0", ".well-known", "openid-configuration"];
        let request = self.outgoing.get(under(&self.config.authority, &document));
        read(&self.outgoing.send(request, LIMITS).await?)
    }
}

/// Why nothing was seen.
#[derive(Debug, thiserror::Error)]
pub enum Looked {
    #[error("Entra cannot be reached")]
    Unreachable(#[from] OutgoingError),
    #[error("what answers is not Entra, or Entra is down")]
    NotEntra,
}

fn read(answer: &Answer) -> Result<Seen, Looked> {
    let at = answer.date;
    match answer.status {
        200 if answer.is_json() => Ok(Seen { is_there: true, at }),
        400 if answer.is_json() => Ok(Seen { is_there: false, at }),
        _ => Err(Looked::NotEntra),
    }
}

const LIMITS: Limits = Limits { deadline: std::time::Duration::from_secs(10), body_bytes_max: 256 * 1024 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_there_or_not_and_a_page_is_neither() {
        let json = ("content-type", "application/json");
        let date = ("date", "Mon, 23 Nov 2026 02:14:51 GMT");
        let seen = read(&Answer::made(200, &[json, date], "{}")).unwrap();
        assert_eq!((seen.is_there, seen.at.unwrap().as_second()), (true, 1_795_400_091));
        assert!(!read(&Answer::made(400, &[json], "{}")).unwrap().is_there);
        for (status, kind) in [(200, "text/html"), (503, "application/json"), (302, "text/html")] {
            assert!(read(&Answer::made(status, &[("content-type", kind)], "")).is_err(), "{status}");
        }
    }
}
