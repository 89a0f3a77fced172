//! Page tokens: where in which snapshot the next page begins.
//!
//! A token is bound, by a key that only this process has, to the caller, the connection and the filter
//! it was made for. One that was made elsewhere, for somebody else or for other fields is told like one
//! whose snapshot is gone, so that nothing is learnt from trying.

use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Filter, gone};
use crate::caller::Caller;
use crate::clock::Moment;
use crate::connection::ConnectionKey;
use crate::reason::Refused;
use crate::secret::make_random;

/// Makes page tokens and reads them back.
pub(super) struct PageTokens(Key);

/// Where a page begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) snapshot: u64,
    /// The first repository of the page.
    pub(super) from: usize,
}

/// What a token is good for.
pub(super) struct Bound<'a> {
    pub(super) caller: &'a Caller,
    pub(super) key: &'a ConnectionKey,
    pub(super) filter: &'a Filter,
}

impl PageTokens {
    pub(super) fn make() -> Self {
        Self(Key::new(HMAC_SHA256, &make_random::<32>()))
    }

    pub(super) fn seal(&self, place: &Place, bound: &Bound<'_>, now: Moment) -> String {
        let mut bytes = Vec::with_capacity(TOKEN_LEN);
        bytes.extend_from_slice(&place.snapshot.to_be_bytes());
        bytes.extend_from_slice(&(place.from as u64).to_be_bytes());
        bytes.extend_from_slice(&now.monotonic.as_secs().to_be_bytes());
        let mac = hmac::sign(&self.0, &bound.to(&bytes));
        bytes.extend_from_slice(mac.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(super) fn open(&self, text: &str, bound: &Bound<'_>, now: Moment) -> Result<Place, Refused> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == TOKEN_LEN);
        let bytes = bytes.ok_or_else(|| Refused::invalid("page_token", "is not one of this list"))?;
        let (place, mac) = bytes.split_at(PLACE_LEN);
        hmac::verify(&self.0, &bound.to(place), mac).map_err(|_| gone())?;
        let number = |at: usize| {
            let bytes = place[8 * at..][..8].try_into().expect("three numbers of eight bytes");
            u64::from_be_bytes(bytes)
        };
        let age = now.monotonic.saturating_sub(Duration::from_secs(number(2)));
        if TOKEN_LIFE < age {
            return Err(gone());
        }
        let from = usize::try_from(number(1)).map_err(|_| gone())?;
        Ok(Place { snapshot: number(0), from })
    }
}

impl Bound<'_> {
    /// All that a token depends on; lengths keep one field from growing into the next.
    fn to(&self, place: &[u8]) -> Vec<u8> {
        let texts = [self.caller.to_string(), self.key.to_string(), self.filter.project.to_lowercase()];
        let mut bytes = place.to_vec();
        bytes.push(u8::from(self.filter.include_unreadable));
        for text in texts {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }
}

/// How long a page may wait for the next one.
pub(super) const TOKEN_LIFE: Duration = Duration::from_mins(10);
/// Snapshot, first repository, and when the token was made.
const PLACE_LEN: usize = 24;
const TOKEN_LEN: usize = PLACE_LEN + 32;

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::connection::Role;

    const PLACE: Place = Place { snapshot: 7, from: 1000 };

    fn at(seconds: u64) -> Moment {
        Moment { wall: Timestamp::UNIX_EPOCH, monotonic: Duration::from_secs(seconds) }
    }

    fn caller(name: &str) -> Caller {
        Caller::Socket { name: name.into(), uid: 1000 }
    }

    fn key(account: &str, role: Role) -> ConnectionKey {
        ConnectionKey { account: account.parse().unwrap(), role }
    }

    fn filter(project: &str) -> Filter {
        Filter { project: project.into(), include_unreadable: false }
    }

    /// P7: a token opens for whom and what it was made, for ten minutes, in this process.
    #[test]
    fn a_page_token_is_good_for_what_it_was_made_for_and_nothing_else() {
        let tokens = PageTokens::make();
        let (jobs, ide) = (caller("jobs"), caller("ide"));
        let ana = key("acme", Role::Developer("ana".parse().unwrap()));
        let ben = key("acme", Role::Developer("ben".parse().unwrap()));
        let elsewhere = key("globex", ana.role.clone());
        let (all, some) = (filter(""), filter("web"));
        let unreadable = Filter { include_unreadable: true, ..filter("") };
        let bound = Bound { caller: &jobs, key: &ana, filter: &all };
        let token = tokens.seal(&PLACE, &bound, at(5));

        assert_eq!(tokens.open(&token, &bound, at(5 + 600)).unwrap(), PLACE);
        let is_gone = |tokens: &PageTokens, bound: &Bound<'_>, now| {
            tokens.open(&token, bound, now).unwrap_err().as_str() == "SNAPSHOT_GONE"
        };
        assert!(is_gone(&tokens, &bound, at(5 + 601)));
        assert!(is_gone(&PageTokens::make(), &bound, at(5)), "another process");
        for (caller, key, filter) in [
            (&ide, &ana, &all),
            (&jobs, &ben, &all),
            (&jobs, &elsewhere, &all),
            (&jobs, &ana, &some),
            (&jobs, &ana, &unreadable),
        ] {
            assert!(is_gone(&tokens, &Bound { caller, key, filter }, at(5)), "{caller} {key} {filter:?}");
        }
    }

    #[test]
    fn what_is_no_page_token_is_invalid() {
        let tokens = PageTokens::make();
        let (caller, key, filter) = (caller("jobs"), key("acme", Role::ServiceUser), filter(""));
        let bound = Bound { caller: &caller, key: &key, filter: &filter };
        let long = "A".repeat(10_000);
        for text in ["x", "!", "AAAA", &long] {
            assert_eq!(tokens.open(text, &bound, at(0)).unwrap_err().as_str(), "INVALID");
        }
        let token = tokens.seal(&PLACE, &bound, at(0));
        let edited = format!("B{}", &token[1..]);
        assert_eq!(tokens.open(&edited, &bound, at(0)).unwrap_err().as_str(), "SNAPSHOT_GONE");
    }
}
