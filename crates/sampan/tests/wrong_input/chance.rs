//! Chance that comes again with its seed, and what it does to right input.

/// `splitmix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators").
pub(crate) struct Chance(u64);

/// Numbers near which programs err.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];
/// Bytes that one input may have.
const LARGEST: usize = 1 << 20;

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    pub(crate) fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// One time in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// A part of something of this length.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        if length == 0 {
            return 0..0;
        }
        let start = self.below(length);
        let most = (length - start).min(if self.once_in(4) { length } else { 16 });
        start..start + 1 + self.below(most)
    }

    /// One of `bases`, changed in one place or in some.
    pub(crate) fn changed(&mut self, bases: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
        let mut bytes = self.one_of(bases).clone();
        let most = if self.once_in(3) { 12 } else { 2 };
        let times = 1 + self.below(most);
        for _ in 0..times {
            self.change(&mut bytes, bases, words);
        }
        bytes.truncate(LARGEST);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, bases: &[Vec<u8>], words: &[&str]) {
        let part = self.part(bytes.len());
        match self.below(10) {
            0 if !part.is_empty() => bytes[part.start] ^= 1 << self.below(8),
            1 if !part.is_empty() => bytes[part.start] = self.next().to_le_bytes()[0],
            2 => drop(bytes.drain(part)),
            3 => {
                let twice = bytes[part.clone()].to_vec();
                let times = if self.once_in(10) { 200 } else { 1 };
                let at = part.end;
                bytes.splice(at..at, twice.repeat(times));
            }
            4 => bytes.truncate(part.start),
            5 => {
                let other = self.one_of(bases);
                let from = self.part(other.len());
                bytes.splice(part, other[from].iter().copied());
            }
            6 => {
                let edge = self.one_of(&EDGES).to_le_bytes();
                let width = 1 << self.below(4);
                bytes.splice(part.start..part.start, edge[..width].iter().copied());
            }
            7 => {
                let edge = *self.one_of(&EDGES);
                bytes.splice(part, edge.to_string().into_bytes());
            }
            8 => {
                for at in part {
                    bytes[at] = self.next().to_le_bytes()[0];
                }
            }
            _ if !words.is_empty() => {
                let word = self.one_of(words);
                let range = if self.once_in(2) {
                    part.start..part.start
                } else {
                    part
                };
                bytes.splice(range, word.bytes());
            }
            _ => {}
        }
    }
}
