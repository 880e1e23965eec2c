//! Whether the holder of the Lease is alive, by its own word: connections to its port for nodes. That one is accepted says that
//! its machine can be reached and that the process is there, no more; that is enough, since who is there and does not work loses
//! the Lease when it runs out.

use std::net::SocketAddr;
use std::time::Instant;

use pierhead_protocol::pace;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep_until, timeout};

/// Asks all the time, as long as it lives.
#[derive(Debug)]
pub(super) struct Witness {
    whom: watch::Sender<Option<SocketAddr>>,
    seen: watch::Receiver<Seen>,
    task: AbortHandle,
}

/// What came of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    whom: Option<SocketAddr>,
    /// When the last question was asked that was answered.
    pub(super) answered: Option<Instant>,
    /// How many questions since were not.
    failures: u32,
}

impl Seen {
    /// Whether the one at this address does not answer any more. Who never did may be out of reach from here, and is not dead.
    pub(super) fn is_silent(&self, whom: SocketAddr) -> bool {
        self.whom == Some(whom) && self.answered.is_some() && self.failures >= pace::ASKED
    }

    fn note(&mut self, asked: Instant, is_answered: bool) {
        if is_answered {
            self.answered = Some(asked);
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }
}

impl Witness {
    pub(super) fn start() -> Self {
        let (whom, asked) = watch::channel(None);
        let (sender, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(watch_over(asked, sender)).abort_handle();
        Self { whom, seen, task }
    }

    /// Whom to ask from now on; `None`: nobody.
    pub(super) fn ask(&self, whom: Option<SocketAddr>) {
        self.whom.send_if_modified(|now| std::mem::replace(now, whom) != whom);
    }

    pub(super) fn seen(&self) -> Seen {
        *self.seen.borrow()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch_over(mut asked: watch::Receiver<Option<SocketAddr>>, sender: watch::Sender<Seen>) {
    loop {
        let whom = *asked.borrow_and_update();
        if sender.borrow().whom != whom {
            sender.send_replace(Seen {
                whom,
                ..Seen::default()
            });
        }
        let Some(whom) = whom else {
            if asked.changed().await.is_err() {
                return;
            }
            continue;
        };
        let began = Instant::now();
        let answer = timeout(pace::ASK, TcpStream::connect(whom)).await;
        let is_answered = matches!(answer, Ok(Ok(_)));
        sender.send_modify(|seen| seen.note(began, is_answered));
        tokio::select! {
            () = sleep_until((began + pace::LOOK).into()) => {}
            changed = asked.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_without_an_answer_says_nothing() {
        let start = Instant::now();
        let whom = SocketAddr::from(([192, 0, 2, 1], 9901));
        let mut seen = Seen {
            whom: Some(whom),
            ..Seen::default()
        };
        for (is_answered, is_silent) in [
            (true, false),
            (false, false),
            (false, true),
            (false, true),
            (true, false),
        ] {
            seen.note(start, is_answered);
            assert_eq!(seen.is_silent(whom), is_silent);
        }
        let never = Seen {
            whom: Some(whom),
            answered: None,
            failures: 9,
        };
        assert!(!never.is_silent(whom), "a policy may forbid to ask");
        seen.failures = 9;
        assert!(
            !seen.is_silent(SocketAddr::from(([192, 0, 2, 2], 9901))),
            "another was asked"
        );
    }

    #[tokio::test]
    async fn who_listens_answers_and_who_has_ended_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let whom = listener.local_addr().unwrap();
        let witness = Witness::start();
        witness.ask(Some(whom));
        let mut seen = witness.seen.clone();
        seen.wait_for(|seen| seen.answered.is_some()).await.unwrap();
        assert!(!witness.seen().is_silent(whom));
        drop(listener);
        seen.wait_for(|seen| seen.is_silent(whom)).await.unwrap();
        assert!(witness.seen().answered.is_some(), "it did once");
        witness.ask(None);
        seen.wait_for(|seen| seen.whom.is_none()).await.unwrap();
        assert!(!witness.seen().is_silent(whom));
    }
}
