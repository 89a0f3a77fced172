//! Where the store is: a file, or a PostgreSQL database.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::Problems;
use super::raw;
use crate::files::read_secret;
use crate::outgoing::client_tls;
use crate::store::{PostgresPlace, StorePlace};

impl raw::Store {
    /// Longer than any token that a replica without its database may still hold, and than a restore is likely to
    /// go back: until then a tombstone keeps what ended from coming back.
    pub(super) fn ended_kept(&self, problems: &mut Problems) -> Duration {
        let days = self.ended_kept_days;
        if !ENDED_KEPT_DAYS.contains(&days) {
            let (min, max) = (ENDED_KEPT_DAYS.start(), ENDED_KEPT_DAYS.end());
            problems.add("store.ended_kept_days", format!("is between {min} and {max}"));
        }
        Duration::from_hours(24) * days
    }

    /// The CA bundle of `outgoing` is trusted for the database too, unless it has one of its own.
    pub(super) fn into_place(
        self,
        base: &Path,
        outgoing_ca: Option<&[u8]>,
        problems: &mut Problems,
    ) -> Option<StorePlace> {
        let Some(url) = &self.url else {
            for (key, is_given) in
                [("password_file", self.password_file.is_some()), ("ca_file", self.ca_file.is_some())]
            {
                if is_given {
                    problems.add(&format!("store.{key}"), "is for a PostgreSQL store: give its url");
                }
            }
            return Some(StorePlace::File(base.join(self.path.unwrap_or_else(|| raw::STORE_PATH.into()))));
        };
        if self.path.is_some() {
            problems.add("store", "has path and url: a store is in a file or in a database, not in both");
        }
        let before = problems.0.len();
        let password = self.password_file.as_ref().and_then(|file| {
            let mut password =
                problems.check("store.password_file", read_secret(&base.join(file), PASSWORD_LEN_MAX))?;
            while password.last().is_some_and(u8::is_ascii_whitespace) {
                password.pop();
            }
            Some(password)
        });
        let own_ca = self.ca_file.as_ref().and_then(|file| problems.read_file("store.ca_file", base, file));
        let tls = problems.check("store.ca_file", client_tls(own_ca.as_deref().or(outgoing_ca)))?;
        let place = PostgresPlace::parse(url, password.as_ref(), tls, self.connections);
        let place = problems.check("store.url", place)?;
        (problems.0.len() == before).then_some(StorePlace::Postgres(Box::new(place)))
    }
}

const ENDED_KEPT_DAYS: RangeInclusive<u32> = 2..=3650;
const PASSWORD_LEN_MAX: usize = 4096;
