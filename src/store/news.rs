//! What other replicas change in the store, from wherever the store tells it.

#[cfg(any(test, feature = "testing"))]
use super::memory::MemoryNews;
use super::postgres::PostgresNews;
use super::rows::News;
use super::{Backend, Store};

/// What others change in the store. Owned by one listener.
pub struct StoreNews(Heard);

enum Heard {
    /// No other process can change the store.
    Nothing,
    Postgres(Box<PostgresNews>),
    #[cfg(any(test, feature = "testing"))]
    Memory(MemoryNews),
}

impl Store {
    /// A listener for what others change from now on.
    pub fn news(&self) -> StoreNews {
        StoreNews(match &self.backend {
            Backend::Sqlite(_) => Heard::Nothing,
            Backend::Postgres(postgres) => Heard::Postgres(Box::new(postgres.news())),
            #[cfg(any(test, feature = "testing"))]
            Backend::Memory(memory) => Heard::Memory(memory.news()),
        })
    }
}

impl StoreNews {
    /// Waits for the next piece of news: for ever, where no other process can change the store.
    pub async fn next(&mut self) -> News {
        match &mut self.0 {
            Heard::Nothing => std::future::pending().await,
            Heard::Postgres(news) => news.next().await,
            #[cfg(any(test, feature = "testing"))]
            Heard::Memory(news) => news.next().await,
        }
    }
}
