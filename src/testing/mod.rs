//! Fakes that unit tests, integration tests and benches share. Behind the feature `testing`, so that
//! no release has them.

mod clock;
mod entra;
pub mod git_urls;
mod postgres;

pub use clock::{ManualClock, RuntimeClock};
pub use entra::FakeEntra;
pub use postgres::TestPostgres;
