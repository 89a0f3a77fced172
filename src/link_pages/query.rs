//! What Entra's redirect brings (azure.md 1.3): a code or an error, and the state.

use crate::entra::judge_redirect;
use crate::links::Callback;
use crate::secret::AuthorizationCode;

/// Reads a callback. `None`: not one, or a doubled or oversized parameter.
pub(super) fn callback(query: Option<&str>, cookie: Option<String>, developers: bool) -> Option<Callback> {
    let query = query.filter(|query| query.len() <= QUERY_LEN_MAX)?;
    let (mut state, mut code, mut error, mut description) = (None, None, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let slot = match name.as_ref() {
            "state" => &mut state,
            "code" => &mut code,
            "error" => &mut error,
            "error_description" => &mut description,
            _ => continue,
        };
        if slot.replace(value.into_owned()).is_some() {
            return None;
        }
    }
    let outcome = match (code, error) {
        (Some(code), None) if !code.is_empty() => Ok(AuthorizationCode::new(code)),
        (None, Some(error)) => Err(judge_redirect(&error, &description.unwrap_or_default())),
        _ => return None,
    };
    let state = state.filter(|state| !state.is_empty() && state.len() <= STATE_LEN_MAX)?;
    Some(Callback { developers, state, outcome, cookie })
}

/// Codes were seen beyond 700 characters; Entra names no limit (azure.md 1.3).
const QUERY_LEN_MAX: usize = 32 * 1024;
/// Ours are 43 characters.
const STATE_LEN_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entra::Declined;

    #[test]
    fn a38_doubled_missing_and_oversized_parameters_are_no_callback() {
        let long = format!("state=s&code={}", "x".repeat(64 * 1024));
        for query in [
            "",
            "state=s",
            "code=c",
            "state=s&state=t&code=c",
            "state=s&code=",
            "state=&code=c",
            "code=c&error=e&state=s",
            &long,
        ] {
            assert!(callback(Some(query), None, false).is_none(), "{query:.60}");
        }
        assert!(callback(None, None, false).is_none());
    }

    #[test]
    fn an_error_is_judged_and_nothing_of_its_text_is_kept() {
        let query = "error=access_denied&error_description=AADSTS65004%3a+canary&state=s";
        let declined = callback(Some(query), None, false).unwrap().outcome.unwrap_err();
        assert_eq!((declined.declined, declined.code), (Declined::ByPerson, Some(65_004)));
        let refused = callback(Some("error=invalid_client&state=s"), None, false).unwrap();
        assert_ne!(refused.outcome.unwrap_err().declined, Declined::ByPerson);
    }
}
