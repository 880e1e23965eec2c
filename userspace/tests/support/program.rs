//! A program of ours at work, which does not outlive its test.

use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

pub(crate) struct Program(pub(crate) Child);

impl Program {
    /// Asks it to end; its exit status.
    pub(crate) fn stop(mut self) -> i32 {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Ended already where `stop` was called.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
