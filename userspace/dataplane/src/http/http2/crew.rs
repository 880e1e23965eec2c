//! The exchanges of a connection, worked on by the connection's own task: what one of them says leaves with what the others say,
//! and no other task has to be woken for it.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

/// Exchanges polled in one turn before other tasks get theirs.
const TURN: usize = 256;

/// Who called, and whom to tell. A waker may be used on any thread, so this is locked; here it never waits.
#[derive(Default)]
struct Calls {
    inner: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    seats: Vec<u32>,
    task: Option<Waker>,
    /// The task is looking through the calls, and needs not be told.
    listening: bool,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes one seat.
struct Bell {
    calls: Arc<Calls>,
    seat: u32,
    rung: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut calls = self.calls.lock();
        calls.seats.push(self.seat);
        if !calls.listening
            && let Some(task) = &calls.task
        {
            task.wake_by_ref();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

struct Seat<F> {
    /// `None` while vacant; the memory is used again.
    work: Pin<Box<Option<F>>>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Futures that one task polls, each when it was woken.
pub(crate) struct Crew<F> {
    seats: Vec<Seat<F>>,
    vacant: Vec<u32>,
    calls: Arc<Calls>,
    turn: Vec<u32>,
}

impl<F: Future<Output = ()>> Crew<F> {
    pub(crate) fn new() -> Self {
        Self {
            seats: Vec::new(),
            vacant: Vec::new(),
            calls: Arc::default(),
            turn: Vec::new(),
        }
    }

    /// How many are at work.
    pub(crate) fn len(&self) -> usize {
        self.seats.len() - self.vacant.len()
    }

    /// Takes on more work; it begins with the next [`Crew::poll`].
    pub(crate) fn add(&mut self, work: F) {
        let at = self.vacant.pop().unwrap_or_else(|| {
            let seat = self.seats.len() as u32;
            let bell = Arc::new(Bell {
                calls: Arc::clone(&self.calls),
                seat,
                rung: AtomicBool::new(false),
            });
            self.seats.push(Seat {
                work: Box::pin(None),
                waker: Waker::from(Arc::clone(&bell)),
                bell,
            });
            seat
        });
        let seat = &mut self.seats[at as usize];
        seat.work.set(Some(work));
        // As if it had been called, but the task need not be told.
        if !seat.bell.rung.swap(true, Ordering::AcqRel) {
            self.calls.lock().seats.push(at);
        }
    }

    /// Polls those that were woken, and those whom they wake.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) {
        let mut polled = 0;
        loop {
            {
                let mut calls = self.calls.lock();
                match &mut calls.task {
                    Some(task) if task.will_wake(cx.waker()) => {}
                    task => *task = Some(cx.waker().clone()),
                }
                let over = polled >= TURN;
                if over && !calls.seats.is_empty() {
                    cx.waker().wake_by_ref();
                }
                calls.listening = !over && !calls.seats.is_empty();
                if !calls.listening {
                    break;
                }
                std::mem::swap(&mut calls.seats, &mut self.turn);
            }
            polled += self.turn.len();
            for at in self.turn.drain(..) {
                let Some(seat) = self.seats.get_mut(at as usize) else {
                    continue;
                };
                seat.bell.rung.store(false, Ordering::Release);
                let Some(work) = seat.work.as_mut().as_pin_mut() else {
                    continue;
                };
                if work.poll(&mut Context::from_waker(&seat.waker)).is_ready() {
                    seat.work.set(None);
                    self.vacant.push(at);
                }
            }
        }
        if self.len() == 0 {
            // Each holds the memory of an exchange, and a connection may be idle for long.
            self.seats.clear();
            self.vacant.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        future::poll_fn,
        rc::Rc,
        sync::atomic::AtomicUsize,
        task::Poll,
    };

    use super::*;

    type Work = Pin<Box<dyn Future<Output = ()>>>;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_who_was_woken_is_polled_and_the_task_is_told_once() {
        let task = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&task));
        let cx = &Context::from_waker(&waker);
        let wakers: Rc<RefCell<Vec<Waker>>> = Rc::default();
        let polls = Rc::new(Cell::new(0));
        let mut crew: Crew<Work> = Crew::new();
        for _ in 0..3 {
            let (wakers, polls) = (Rc::clone(&wakers), Rc::clone(&polls));
            let mut left = 2;
            crew.add(Box::pin(poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                wakers.borrow_mut().push(cx.waker().clone());
                left -= 1;
                if left == 0 { Poll::Ready(()) } else { Poll::Pending }
            })));
        }
        crew.poll(cx);
        assert_eq!((crew.len(), polls.get()), (3, 3));
        let first = wakers.borrow()[1].clone();
        let told = task.0.load(Ordering::Relaxed);
        first.wake_by_ref();
        first.wake_by_ref();
        assert_eq!(task.0.load(Ordering::Relaxed), told + 1);
        crew.poll(cx);
        assert_eq!((crew.len(), polls.get()), (2, 4));
        // One that has left is polled no more.
        first.wake();
        crew.poll(cx);
        assert_eq!(polls.get(), 4);
        for waker in wakers.borrow().iter() {
            waker.wake_by_ref();
        }
        crew.poll(cx);
        assert_eq!((crew.len(), crew.seats.len()), (0, 0));
        // The seats that went still have bells somewhere.
        for waker in wakers.borrow().iter() {
            waker.wake_by_ref();
        }
        crew.poll(cx);
        crew.add(Box::pin(poll_fn(|_| Poll::Ready(()))));
        crew.poll(cx);
        assert_eq!(crew.len(), 0);
    }

    #[test]
    fn whom_a_neighbour_wakes_gets_its_turn_in_the_same_poll() {
        let task = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&task));
        let cx = &Context::from_waker(&waker);
        let waiting: Rc<RefCell<Option<Waker>>> = Rc::default();
        let done = Rc::new(Cell::new(false));
        let mut crew: Crew<Work> = Crew::new();
        let (here, over) = (Rc::clone(&waiting), Rc::clone(&done));
        crew.add(Box::pin(poll_fn(move |cx| {
            if over.get() {
                return Poll::Ready(());
            }
            *here.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })));
        crew.add(Box::pin(poll_fn(move |_| {
            done.set(true);
            waiting.borrow_mut().take().into_iter().for_each(Waker::wake);
            Poll::Ready(())
        })));
        let told = task.0.load(Ordering::Relaxed);
        crew.poll(cx);
        assert_eq!(crew.len(), 0);
        assert_eq!(task.0.load(Ordering::Relaxed), told);
    }
}
