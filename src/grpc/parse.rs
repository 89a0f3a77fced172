//! From the wire's text to names that were checked (S8).

use std::time::Duration;

use jiff::Timestamp;

use crate::connection::{HeadlessIdentity, Role};
use crate::ids::{AccountId, DeveloperId, InvalidName, Label};
use crate::pb;
use crate::reason::Refused;

pub(super) fn name<T: std::str::FromStr<Err = InvalidName>>(
    field: &'static str,
    text: &str,
) -> Result<T, Refused> {
    text.parse().map_err(Refused::invalid_name(field))
}

pub(super) fn account(text: &str) -> Result<AccountId, Refused> {
    name("account_id", text)
}

/// An optional label: empty is none.
pub(super) fn label(field: &'static str, text: &str) -> Result<Option<Label>, Refused> {
    if text.is_empty() { Ok(None) } else { name(field, text).map(Some) }
}

/// Free text with an upper limit in bytes: empty is none.
pub(super) fn optional(field: &'static str, text: &str, max: usize) -> Result<Option<String>, Refused> {
    match text.len() {
        0 => Ok(None),
        len if len <= max => Ok(Some(text.to_owned())),
        _ => Err(Refused::invalid(field, "is too long")),
    }
}

/// Whose, if a developer is named. The assertion is not asked for yet, but never comes without a developer.
pub(super) fn developer(id: &str, assertion: &str) -> Result<Option<DeveloperId>, Refused> {
    match (id, assertion.len()) {
        ("", 0) => Ok(None),
        ("", _) => Err(Refused::invalid("developer_assertion", "comes with a developer_id only")),
        (_, len) if ASSERTION_LEN_MAX < len => Err(Refused::invalid("developer_assertion", "is too long")),
        (id, _) => name("developer_id", id).map(Some),
    }
}

pub(super) fn role(connection: Option<&pb::ConnectionName>) -> Result<Role, Refused> {
    let missing = || Refused::invalid("connection.role", "is required");
    let connection = connection.ok_or_else(missing)?;
    let developer_given = !connection.developer_id.is_empty();
    match connection.role() {
        pb::Role::Unspecified => Err(missing()),
        pb::Role::Developer => name("connection.developer_id", &connection.developer_id).map(Role::Developer),
        pb::Role::ServiceUser | pb::Role::ServicePrincipal if developer_given => {
            Err(Refused::invalid("connection.developer_id", "is for developers only"))
        }
        pb::Role::ServiceUser => Ok(Role::ServiceUser),
        pb::Role::ServicePrincipal => Ok(Role::ServicePrincipal),
    }
}

/// `min_ttl` of a token request (design.md 4.1).
pub(super) fn min_ttl(asked: Option<prost_types::Duration>) -> Result<Duration, Refused> {
    let Some(asked) = asked else {
        return Ok(MIN_TTL_DEFAULT);
    };
    let asked = Duration::try_from(asked).map_err(|_| Refused::invalid("min_ttl", "must not be negative"))?;
    if MIN_TTL_MAX < asked {
        return Err(Refused::invalid("min_ttl", "is at most 30 minutes"));
    }
    Ok(asked)
}

/// `None`: the one in use.
pub(super) fn headless(asked: pb::HeadlessIdentity) -> Option<HeadlessIdentity> {
    match asked {
        pb::HeadlessIdentity::Unspecified => None,
        pb::HeadlessIdentity::ServiceUser => Some(HeadlessIdentity::ServiceUser),
        pb::HeadlessIdentity::ServicePrincipal => Some(HeadlessIdentity::ServicePrincipal),
    }
}

/// `max_age` of a list.
pub(super) fn max_age(asked: Option<prost_types::Duration>) -> Result<Duration, Refused> {
    let Some(asked) = asked else {
        return Ok(MAX_AGE_DEFAULT);
    };
    let asked = Duration::try_from(asked).map_err(|_| Refused::invalid("max_age", "must not be negative"))?;
    if MAX_AGE_MAX < asked {
        return Err(Refused::invalid("max_age", "is at most 1 hour"));
    }
    Ok(asked)
}

pub(super) fn timestamp(
    field: &'static str,
    given: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, Refused> {
    given
        .map(|given| {
            Timestamp::new(given.seconds, given.nanos)
                .map_err(|_| Refused::invalid(field, "is not a point in time"))
        })
        .transpose()
}

/// A page size, clamped as the proto says; 0 is the default.
pub(super) fn page_size(asked: i32) -> Result<usize, Refused> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(asked) => Ok(asked.min(PAGE_SIZE_MAX)),
        Err(_) => Err(Refused::invalid("page_size", "must not be negative")),
    }
}

const MIN_TTL_DEFAULT: Duration = Duration::from_mins(5);
const MIN_TTL_MAX: Duration = Duration::from_mins(30);
const MAX_AGE_DEFAULT: Duration = Duration::from_mins(5);
const MAX_AGE_MAX: Duration = Duration::from_hours(1);
const PAGE_SIZE_DEFAULT: usize = 100;
const PAGE_SIZE_MAX: usize = 1000;
const ASSERTION_LEN_MAX: usize = 8 * 1024;
