//! A deadline that is cheap to move.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer per connection (or HTTP/2 stream). Moving the deadline further away costs nothing: the timer wheel is only
/// asked again when the earlier time has come.
#[derive(Default)]
pub(crate) struct Timer {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Who is woken when the time has come.
    waker: Option<Waker>,
}

impl Timer {
    /// `None`: never.
    pub(crate) fn set(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Ready when the deadline has passed; stays ready until it is moved.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
            // It may have woken before, and wakes nobody again who does not ask.
            self.waker = None;
        }
        let awaited = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if awaited && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                self.waker = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        if !awaited {
            self.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// The earlier of two deadlines.
pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        task::spawn,
        time::{sleep_until, timeout},
    };

    use super::*;

    async fn asked_once(timer: &mut Timer) -> Poll<()> {
        poll_fn(|cx| Poll::Ready(timer.poll(cx))).await
    }

    /// When it ends, in milliseconds from `start`; panics where nobody is woken.
    async fn ends(timer: &mut Timer, start: Instant) -> u128 {
        let ended = timeout(Duration::from_mins(1), poll_fn(|cx| timer.poll(cx))).await;
        ended.expect("it wakes whoever waits");
        start.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn wherever_the_deadline_is_moved_it_ends_then() {
        let start = Instant::now();
        let after = |millis| Some(start + Duration::from_millis(millis));
        let mut timer = Timer::default();
        assert!(asked_once(&mut timer).await.is_pending());
        // Further away, and nearer, while it waits.
        timer.set(after(100));
        assert!(asked_once(&mut timer).await.is_pending());
        timer.set(after(300));
        assert!(asked_once(&mut timer).await.is_pending());
        assert_eq!(ends(&mut timer, start).await, 300);
        timer.set(after(10_000));
        assert!(asked_once(&mut timer).await.is_pending());
        timer.set(after(500));
        assert_eq!(ends(&mut timer, start).await, 500);
        assert!(asked_once(&mut timer).await.is_ready());
        // It woke somebody who did not ask.
        timer.set(after(600));
        assert!(asked_once(&mut timer).await.is_pending());
        sleep_until(start + Duration::from_millis(700)).await;
        timer.set(after(900));
        assert!(asked_once(&mut timer).await.is_pending());
        timer.set(after(800));
        assert_eq!(ends(&mut timer, start).await, 800);
    }

    #[tokio::test(start_paused = true)]
    async fn it_wakes_who_asked_last() {
        let start = Instant::now();
        let mut timer = Timer::default();
        timer.set(Some(start + Duration::from_millis(100)));
        assert!(asked_once(&mut timer).await.is_pending());
        let elsewhere = spawn(async move { ends(&mut timer, start).await });
        assert_eq!(elsewhere.await.unwrap(), 100);
    }
}
