//! How long each step of a session took.

use std::io::Write;
use std::time::{Duration, Instant};

/// What `--timings` prints, in the order in which it happened.
#[derive(Debug)]
pub struct Timings {
    wanted: bool,
    last: Instant,
    steps: Vec<(&'static str, Duration)>,
}

impl Timings {
    pub fn new(wanted: bool) -> Self {
        Self {
            wanted,
            last: Instant::now(),
            steps: Vec::new(),
        }
    }

    /// The step that has just ended.
    pub fn done(&mut self, step: &'static str) {
        let now = Instant::now();
        self.steps.push((step, now.duration_since(self.last)));
        self.last = now;
    }

    pub fn say(&self) {
        if !self.wanted {
            return;
        }
        let mut err = std::io::stderr().lock();
        let ready: Duration = self
            .steps
            .iter()
            .take_while(|(step, _)| *step != "agent")
            .map(|(_, took)| *took)
            .sum();
        for (step, took) in &self.steps {
            // A closed stderr must not end a session.
            let _closed = writeln!(
                err,
                "timing     {step:<10} {:>7.1} ms",
                took.as_secs_f64() * 1e3
            );
        }
        let _closed = writeln!(
            err,
            "timing     {:<10} {:>7.1} ms",
            "to agent",
            ready.as_secs_f64() * 1e3
        );
    }
}
