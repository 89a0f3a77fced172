//! Which directory an organization is connected to, asked without a token (azure.md 3.2, 3.9).

use super::DevopsError;
use crate::ids::TenantId;
use crate::outgoing::Answer;

/// What an organization tells whoever has no token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Directory {
    Connected(TenantId),
    /// Personal accounts, or none: nobody of an Entra tenant is admitted.
    NotConnected,
    /// The answer names none; nothing follows.
    Untold,
}

pub(super) fn read(answer: &Answer) -> Result<Directory, DevopsError> {
    match answer.status {
        404 => return Err(DevopsError::NotFound),
        429 => return Err(DevopsError::Throttled { retry_after: answer.retry_after }),
        500.. => return Err(DevopsError::Unavailable),
        _ => {}
    }
    let tenant = answer.header("x-vss-resourcetenant").map(|text| text.trim().to_ascii_lowercase());
    let challenged = answer.header_values("www-authenticate").find_map(tenant_of);
    Ok(match (challenged, tenant.as_deref().map(str::parse::<TenantId>)) {
        (None, Some(Ok(tenant))) if tenant.as_str() == NOBODY => Directory::NotConnected,
        (Some(tenant), _) | (None, Some(Ok(tenant))) => Directory::Connected(tenant),
        (None, Some(Err(_)) | None) => Directory::Untold,
    })
}

/// `Bearer authorization_uri=https://login.microsoftonline.com/{tenant}`, unquoted, also with an older host.
fn tenant_of(challenge: &str) -> Option<TenantId> {
    let (_, uri) = challenge.strip_prefix("Bearer ")?.split_once("authorization_uri=")?;
    let uri = uri.split(',').next()?.trim().trim_matches('"');
    let tenant = uri.strip_prefix("https://")?.split('/').nth(1)?;
    tenant.to_ascii_lowercase().parse().ok()
}

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "10000000-0000-4000-a000-000000000001";

    fn read(status: u16, headers: &[(&'static str, &str)]) -> Result<Directory, DevopsError> {
        super::read(&Answer::made(status, headers, ""))
    }

    #[test]
    fn the_challenge_names_the_tenant_in_each_form_it_was_seen_in() {
        let connected = Directory::Connected(TENANT.parse().unwrap());
        for (name, value) in [
            (
                "www-authenticate",
                format!("Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}"),
            ),
            ("www-authenticate", format!("Bearer authorization_uri=https://login.windows.net/{TENANT}/")),
            ("x-vss-resourcetenant", TENANT.to_uppercase()),
        ] {
            assert_eq!(read(401, &[(name, value.as_str())]).unwrap(), connected, "{value}");
        }
        assert_eq!(read(401, &[("x-vss-resourcetenant", NOBODY)]).unwrap(), Directory::NotConnected);
        assert_eq!(read(401, &[("www-authenticate", "Basic realm=\"x\"")]).unwrap(), Directory::Untold);
    }

    #[test]
    fn an_organization_that_is_not_there_and_one_that_is_down_are_told_apart() {
        assert!(matches!(read(404, &[]), Err(DevopsError::NotFound)));
        assert!(matches!(read(503, &[]), Err(DevopsError::Unavailable)));
    }
}
