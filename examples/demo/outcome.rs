//! Errors of the demo: sentences for the person who watches it.

use std::error::Error;
use std::fmt::Display;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Says what was being done when something failed.
pub(crate) trait Context<T> {
    fn context(self, what: impl Display) -> Outcome<T>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context(self, what: impl Display) -> Outcome<T> {
        self.map_err(|error| format!("{what}: {}", chain(&*error.into())).into())
    }
}

/// Fails unless it is so.
pub(crate) fn ensure(so: bool, else_seen: impl FnOnce() -> String) -> Outcome<()> {
    if so { Ok(()) } else { Err(else_seen().into()) }
}

/// An error with its causes.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
