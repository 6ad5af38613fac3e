//! A bug in one connection ends that connection alone.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

/// Runs to the end, or to a panic, which is told and goes no further.
///
/// What a panic could leave half done is dropped with the future; what connections share is behind locks that take a
/// poisoned one for what it holds, and is written in single steps.
pub async fn isolated(future: impl Future<Output = ()> + Send) {
    let mut future = Box::pin(future);
    let ended = poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await;
    if ended.is_err() {
        tracing::error!(
            "a connection failed by a bug of the sidecar's and was closed; the others go on"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;
    use tokio_util::task::TaskTracker;

    use super::*;

    /// As `server::accept` runs connections: a permit each, in one tracker.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_ends_one_connection_and_gives_its_room_back() {
        let room = Arc::new(Semaphore::new(4));
        let tracker = TaskTracker::new();
        let done = Arc::new(Semaphore::new(0));
        for number in 0..40 {
            let permit = Arc::clone(&room).acquire_owned().await.unwrap();
            let done = Arc::clone(&done);
            tracker.spawn(async move {
                isolated(async {
                    tokio::task::yield_now().await;
                    assert!(number % 2 == 0, "a bug");
                    done.add_permits(1);
                })
                .await;
                drop(permit);
            });
        }
        tracker.close();
        tracker.wait().await;
        assert_eq!(done.available_permits(), 20);
        assert_eq!(room.available_permits(), 4);
    }
}
