//! Work that outlives the request that asked for it.
//!
//! A request's future may be dropped at any await: the caller went away. What spends a code or a
//! grant, or writes what was earned with one, therefore runs here (S22). Shutdown waits for it.

use std::future::Future;

use tokio_util::task::TaskTracker;

/// Runs futures to their end, whoever waits for them.
#[derive(Clone, Debug, Default)]
pub struct Tasks(TaskTracker);

/// The task panicked or the runtime is ending; what it did is unknown.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the task did not come to its end")]
pub struct Lost;

impl Tasks {
    /// Starts `work` at once and returns a future of its outcome. Dropping that future changes
    /// nothing for the work.
    pub fn run<T>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Result<T, Lost>> + Send + 'static
    where
        T: Send + 'static,
    {
        let running = self.0.spawn(work);
        async move { running.await.map_err(|_| Lost) }
    }

    /// Waits until all that was started has ended.
    pub async fn drain(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits_for_it() {
        let tasks = Tasks::default();
        let (go, wait) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel();
        drop(tasks.run(async move {
            let _ = wait.await;
            let _ = done.send("ended");
        }));
        go.send(()).unwrap();
        tasks.drain().await;
        assert_eq!(ended.await, Ok("ended"));
    }
}
