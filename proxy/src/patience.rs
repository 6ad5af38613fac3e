//! Waiting for a peer, but not for ever, many thousand times a second.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that a connection keeps: to put it off costs nothing, where to set a new one up for each wait takes a lock that
/// all connections share, and another one to take it down. It is not even made before something is waited for.
#[derive(Debug, Default)]
pub struct Patience(Option<Pin<Box<Sleep>>>);

/// It took too long.
#[derive(Debug)]
pub struct Exhausted;

impl Patience {
    pub async fn wait<T>(
        &mut self,
        most: Duration,
        what: impl Future<Output = T>,
    ) -> Result<T, Exhausted> {
        let mut what = pin!(what);
        let mut set = false;
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = what.as_mut().poll(cx) {
                return Poll::Ready(Ok(outcome));
            }
            let timer = match &mut self.0 {
                Some(timer) => {
                    if !set {
                        timer.as_mut().reset(Instant::now() + most);
                    }
                    timer
                }
                None => self.0.insert(Box::pin(sleep_until(Instant::now() + most))),
            };
            set = true;
            timer.as_mut().poll(cx).map(|()| Err(Exhausted))
        })
        .await
    }
}

/// A wait of which nothing is kept: the timer is made where the first try brings nothing, and writes mostly go at once.
pub async fn within<T>(most: Duration, what: impl Future<Output = T>) -> Result<T, Exhausted> {
    Patience::default().wait(most, what).await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_time() {
        let mut patience = Patience::default();
        assert!(patience.wait(Duration::ZERO, ready(())).await.is_ok());
        for seconds in [5, 600, 1, 60] {
            let begun = Instant::now();
            let most = Duration::from_secs(seconds);
            assert!(patience.wait(most, pending::<()>()).await.is_err());
            let took = begun.elapsed();
            assert!(
                took >= most && took < most + Duration::from_millis(10),
                "{took:?}"
            );
        }
        let begun = Instant::now();
        let soon = tokio::time::sleep(Duration::from_secs(2));
        assert!(patience.wait(Duration::from_secs(3), soon).await.is_ok());
        assert!(begun.elapsed() < Duration::from_millis(2010));
    }
}
