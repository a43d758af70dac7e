//! What supervisors and runners count, and how it lies in the files that the node program reads.
//!
//! There are two kinds of file, both of [`BYTES`] bytes, an array of 64-bit words in the order of the machine: the node's
//! totals ([`TOTALS`], one file in the run directory) and a container's page ([`PAGE`], in the container's directory).
//! They are memory that is shared: to count is to add to a word, so nothing is lost with a process that is killed, and
//! nobody is woken when they are read.
//!
//! A layout is named by the file's own name. Within one, words that nobody has used yet are zero and may be given a
//! meaning; a word never changes its meaning.

mod container;
mod durations;
mod labels;
mod totals;
mod trap;

pub use container::{CODES, Count, Page};
pub use durations::{Durations, Seen};
pub use labels::{Counted, Labels};
pub use totals::{Cause, ENDS, Phase, Role, Total, Totals};
pub use trap::Trap;

/// The totals' name in the run directory. No containerd namespace can be called so.
pub const TOTALS: &str = ".totals.1";
/// A page's name in the container's directory.
pub const PAGE: &str = "numbers.1";
/// The size of each.
pub const BYTES: usize = 4096;
/// Words in each.
pub const WORDS: usize = BYTES / 8;

/// A file's words, as they were when it was read; what is missing at its end is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(Vec<u64>);

impl Default for Words {
    fn default() -> Self {
        Self(vec![0; WORDS])
    }
}

impl Words {
    /// Of a file's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut words: Vec<u64> = bytes
            .as_chunks()
            .0
            .iter()
            .take(WORDS)
            .map(|word| u64::from_ne_bytes(*word))
            .collect();
        words.resize(WORDS, 0);
        Self(words)
    }

    /// One word; 0 where there is none of that number.
    #[must_use]
    pub fn get(&self, word: usize) -> u64 {
        self.0.get(word).copied().unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn add(&mut self, word: usize, by: u64) {
        self.0[word] += by;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_two_numbers_of_a_file_have_the_same_word() {
        let mut taken = BTreeSet::new();
        for word in totals::all_words() {
            assert!(word < WORDS && taken.insert(word), "totals: {word}");
        }
        taken.clear();
        for word in container::all_words() {
            assert!(word < WORDS && taken.insert(word), "page: {word}");
        }
    }

    #[test]
    fn a_short_file_is_one_with_zeros() {
        assert_eq!(Words::of(&[]), Words::default());
        let words = Words::of(&7_u64.to_ne_bytes());
        assert_eq!((words.get(0), words.get(1), words.get(WORDS)), (7, 0, 0));
        assert_eq!(Words::of(&vec![0; 3 * BYTES]), Words::default());
    }

    #[test]
    fn durations_go_into_the_bucket_that_holds_them() {
        let mut words = Words::default();
        let took = |words: &mut Words, seconds: f64| {
            for (word, by) in Durations::START[0].of(Duration::from_secs_f64(seconds)) {
                words.add(word, by);
            }
        };
        for seconds in [0.000_1, 0.000_5, 0.3, 100.0] {
            took(&mut words, seconds);
        }
        let seen = Durations::START[0].seen(&words);
        assert_eq!(seen.count, 4);
        assert!((seen.seconds - 100.300_6).abs() < 1e-6, "{seen:?}");
        let (bounds, counts): (Vec<_>, Vec<_>) = seen.buckets.iter().copied().unzip();
        assert_eq!(counts.iter().sum::<u64>(), 4);
        // A bound belongs to its bucket.
        assert_eq!((bounds[0], counts[0]), (0.000_5, 2));
        assert_eq!(counts.last(), Some(&1));
        assert_eq!(bounds.last(), Some(&f64::MAX));
    }

    #[test]
    fn codes_and_ends_that_nobody_has_foreseen_are_counted_together() {
        assert_eq!(Count::answered(418).word(), Count::answered(499).word());
        assert_eq!(Count::answered(299).word(), Count::answered(207).word());
        assert_ne!(Count::answered(200).word(), Count::answered(201).word());
        // What no server sends is still counted somewhere.
        assert_eq!(Count::answered(999).word(), Count::answered(599).word());
        assert_eq!(Total::ended(77).word(), Total::ended(4_000_000).word());
        assert_ne!(Total::ended(0).word(), Total::ended(1).word());
    }
}
