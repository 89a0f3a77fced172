//! The items of an import, and what became of each.

use super::{parse, status};
use crate::links::{ImportItem, ImportOutcome};
use crate::pb;
use crate::reason::Refused;
use crate::secret::RefreshToken;

pub(super) fn items(items: Vec<pb::ImportItem>) -> Result<Vec<ImportItem>, Refused> {
    if items.is_empty() || ITEMS_MAX < items.len() {
        return Err(Refused::invalid("items", "must be 1 to 20"));
    }
    let items = items.into_iter().map(item).collect::<Result<Vec<_>, _>>()?;
    let twice =
        items.iter().enumerate().any(|(at, one)| items[..at].iter().any(|other| other.role == one.role));
    if twice {
        return Err(Refused::invalid("items", "must each be of another connection"));
    }
    Ok(items)
}

fn item(item: pb::ImportItem) -> Result<ImportItem, Refused> {
    let invalid = |problem: &'static str| Refused::invalid("items.refresh_token", problem);
    match item.refresh_token.len() {
        0 => return Err(invalid("is required")),
        len if GRANT_LEN_MAX < len => return Err(invalid("is too long")),
        _ if !item.refresh_token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            return Err(invalid("is no refresh token of Entra"));
        }
        _ => {}
    }
    let expected = match item.expected_object_id.as_str() {
        "" => None,
        text => Some(parse::name("items.expected_object_id", text)?),
    };
    Ok(ImportItem {
        role: parse::role(item.connection.as_ref())?,
        expected_object_id: expected,
        last_used_at: parse::timestamp("items.last_used_at", item.last_used_at)?,
        grant: RefreshToken::new(item.refresh_token),
    })
}

pub(super) fn result(connection: Option<pb::ConnectionName>, outcome: &ImportOutcome) -> pb::ImportResult {
    let (code, message) = match outcome {
        ImportOutcome::Imported => (tonic::Code::Ok, String::new()),
        ImportOutcome::Stands(why) => (tonic::Code::AlreadyExists, (*why).to_owned()),
        ImportOutcome::Failed(refused) => {
            let status = status::of(refused);
            (status.code(), status.message().to_owned())
        }
    };
    let reason = match outcome {
        ImportOutcome::Failed(Refused::Problem(problem)) => problem.reason.as_str(),
        ImportOutcome::Imported | ImportOutcome::Stands(_) | ImportOutcome::Failed(_) => "",
    };
    pb::ImportResult { connection, code: code.into(), reason: reason.to_owned(), message }
}

/// With grants of the usual 2 KiB this stays within a request.
const ITEMS_MAX: usize = 20;
const GRANT_LEN_MAX: usize = 16 * 1024;
