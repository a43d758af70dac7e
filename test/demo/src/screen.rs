use std::fmt::Display;
use std::time::{Duration, Instant};

/// What the person sees: chapters, and lines with the time since the beginning.
pub(crate) struct Screen {
    began: Instant,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            began: Instant::now(),
        }
    }
}

impl Screen {
    /// Says what comes now.
    pub(crate) fn chapter(&mut self, title: &str) {
        println!("\n{title}");
    }

    /// One thing that happened.
    pub(crate) fn line(&mut self, text: impl Display) {
        println!("  [{:5.1} s] {text}", self.began.elapsed().as_secs_f64());
    }

    /// What a program wrote, as a block.
    pub(crate) fn block(&mut self, text: &str) {
        for line in text.trim_end().lines() {
            println!("            | {line}");
        }
    }

    /// The closing line.
    pub(crate) fn close(&mut self) {
        println!("\nDone in {:.1} s.", self.began.elapsed().as_secs_f64());
    }
}

/// A duration in milliseconds, as people read it.
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
