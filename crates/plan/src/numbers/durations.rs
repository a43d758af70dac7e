use std::time::Duration;

use super::Words;

/// Where a histogram lies: a word for each bucket, one for what is beyond the last bound, and one for the sum in
/// nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Durations {
    first: usize,
    /// Upper bounds in seconds, ascending.
    bounds: &'static [f64],
}

/// A histogram's content.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// How many durations there were.
    pub count: u64,
    /// All of them together.
    pub seconds: f64,
    /// Upper bound in seconds and how many fell into this bucket and into no lower one; the last bound is the largest
    /// number that there is.
    pub buckets: Vec<(f64, u64)>,
}

/// A start is over in milliseconds where the program is compiled, in seconds where the node is busy.
const STARTS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Small guests compile in some milliseconds, the largest take a minute.
const COMPILES: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0,
];
/// OpenTelemetry's advice for `http.server.request.duration`, with two bounds below for guests that answer at once.
const REQUESTS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Words that a histogram takes: all have as many bounds.
const LENGTH: usize = STARTS.len() + 2;

impl Durations {
    /// Of the totals: how long the phases of a start took, in the order of [`super::Phase::ALL`].
    pub const START: [Self; super::Phase::ALL.len()] = {
        let mut all = [Self::at(128, STARTS); super::Phase::ALL.len()];
        let mut index = 0;
        while index < all.len() {
            all[index].first = 128 + index * LENGTH;
            index += 1;
        }
        all
    };
    /// Of the totals: how long programs took to compile.
    pub const COMPILE: Self = Self::at(384, COMPILES);
    /// Of a page: how long requests took, from the header's arrival to the end of the answer.
    pub const REQUEST: Self = Self::at(128, REQUESTS);

    const fn at(first: usize, bounds: &'static [f64]) -> Self {
        assert!(bounds.len() + 2 == LENGTH);
        Self { first, bounds }
    }

    /// What to add to which words for one that took so long.
    #[must_use]
    pub fn of(self, took: Duration) -> [(usize, u64); 2] {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        [
            (self.first + bucket, 1),
            (self.first + LENGTH - 1, nanoseconds),
        ]
    }

    /// Reads it.
    #[must_use]
    pub fn seen(self, words: &Words) -> Seen {
        let bounds = self.bounds.iter().copied().chain([f64::MAX]);
        let buckets: Vec<_> = bounds
            .zip(self.first..)
            .map(|(bound, word)| (bound, words.get(word)))
            .collect();
        Seen {
            count: buckets
                .iter()
                .fold(0, |sum: u64, (_, count)| sum.saturating_add(*count)),
            seconds: Duration::from_nanos(words.get(self.first + LENGTH - 1)).as_secs_f64(),
            buckets,
        }
    }

    #[cfg(test)]
    pub(super) fn words(self) -> std::ops::Range<usize> {
        self.first..self.first + LENGTH
    }
}
