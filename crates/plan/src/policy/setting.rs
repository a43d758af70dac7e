use std::time::Duration;

use crate::coredump::MOST_BYTES;
use crate::policy::Rule;
use crate::{AccessLog, LogFormat, Proposal, Reach, RootAccess};

/// A value of a knob, as people write it.
pub(crate) trait Setting: Sized {
    /// What the text says; `None` if it is no such value.
    fn read(text: &str) -> Option<Self>;

    /// Whether it asks for no more than the ceiling.
    fn within(&self, ceiling: &Self) -> bool;
}

macro_rules! choices {
    ($type:ident: $($text:literal => $value:ident),+) => {
        impl Setting for $type {
            fn read(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$value),)+
                    _ => None,
                }
            }

            // The variants are declared from the least to the most.
            fn within(&self, ceiling: &Self) -> bool {
                self <= ceiling
            }
        }
    };
}

choices!(Reach: "none" => None, "listen" => Listen, "all" => All);
choices!(RootAccess: "none" => None, "ro" => ReadOnly, "rw" => ReadWrite);
choices!(AccessLog: "off" => Off, "json" => Json);
choices!(LogFormat: "text" => Text, "json" => Json);
choices!(Proposal: "exceptions" => Exceptions, "gc" => Gc, "memory64" => Memory64, "multi-memory" => MultiMemory,
    "relaxed-simd" => RelaxedSimd, "simd" => Simd, "tail-call" => TailCall);

impl Setting for bool {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn within(&self, ceiling: &Self) -> bool {
        self <= ceiling
    }
}

/// A number between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count<const LEAST: u32, const MOST: u32>(pub(crate) u32);

impl<const LEAST: u32, const MOST: u32> Setting for Count<LEAST, MOST> {
    fn read(text: &str) -> Option<Self> {
        let number = text.parse().ok()?;
        (LEAST..=MOST).contains(&number).then_some(Self(number))
    }

    fn within(&self, ceiling: &Self) -> bool {
        self.0 <= ceiling.0
    }
}

/// A size of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StackSize(pub(crate) u64);

impl Setting for StackSize {
    fn read(text: &str) -> Option<Self> {
        let size = bytes(text)?;
        ((64 << 10)..=(64 << 20))
            .contains(&size)
            .then_some(Self(size))
    }

    fn within(&self, ceiling: &Self) -> bool {
        self.0 <= ceiling.0
    }
}

/// A size of a core dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DumpSize(pub(crate) u64);

impl Setting for DumpSize {
    fn read(text: &str) -> Option<Self> {
        let size = bytes(text)?;
        ((64 << 10)..=MOST_BYTES)
            .contains(&size)
            .then_some(Self(size))
    }

    fn within(&self, ceiling: &Self) -> bool {
        self.0 <= ceiling.0
    }
}

/// A number of bytes that is more than a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) struct Bytes(pub(crate) u64);

impl Setting for Bytes {
    fn read(text: &str) -> Option<Self> {
        bytes(text).map(Self)
    }

    fn within(&self, ceiling: &Self) -> bool {
        self <= ceiling
    }
}

impl Setting for u64 {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number| *number > 0)
    }

    fn within(&self, ceiling: &Self) -> bool {
        self <= ceiling
    }
}

impl Setting for Duration {
    fn read(text: &str) -> Option<Self> {
        duration(text).filter(|time| !time.is_zero())
    }

    fn within(&self, ceiling: &Self) -> bool {
        self <= ceiling
    }
}

/// `none` is no bound, which is more than every bound.
impl<T: Setting> Setting for Option<T> {
    fn read(text: &str) -> Option<Self> {
        if text == "none" {
            Some(None)
        } else {
            T::read(text).map(Some)
        }
    }

    fn within(&self, ceiling: &Self) -> bool {
        match (self, ceiling) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(value), Some(ceiling)) => value.within(ceiling),
        }
    }
}

/// A list by commas; white space around its parts means nothing. Each part has to be within some part of a ceiling.
impl<T: Setting> Setting for Vec<T> {
    fn read(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self::new());
        }
        text.split(',').map(|part| T::read(part.trim())).collect()
    }

    fn within(&self, ceiling: &Self) -> bool {
        self.iter()
            .all(|one| ceiling.iter().any(|other| one.within(other)))
    }
}

impl Setting for Rule {
    fn read(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn within(&self, ceiling: &Self) -> bool {
        ceiling.covers(self)
    }
}

/// An absolute path without `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) String);

impl Setting for Place {
    fn read(text: &str) -> Option<Self> {
        let plain = text.starts_with('/') && !text.split('/').any(|part| part == "..");
        plain.then(|| Self(text.to_owned()))
    }

    fn within(&self, _: &Self) -> bool {
        true
    }
}

/// A word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) String);

impl Setting for Word {
    fn read(text: &str) -> Option<Self> {
        let word = !text.is_empty() && !text.contains(char::is_whitespace);
        word.then(|| Self(text.to_owned()))
    }

    fn within(&self, _: &Self) -> bool {
        true
    }
}

/// A whole number of bytes, with Kubernetes' units for memory: `Ki`, `Mi`, `Gi`, `k`, `M`, `G`.
fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 6] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("k", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
    ];
    let found = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (digits, factor) = found.unwrap_or((text, 1));
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Whole numbers with the units `h`, `m`, `s`, `ms`, one after another, as Go and Kubernetes write durations.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let milliseconds = match &rest[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(
                Duration::read(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "0s",
            "1d",
            "99999999999999999999s",
        ] {
            assert_eq!(Duration::read(text), None, "{text}");
        }
        for (text, size) in [
            ("10", 10),
            ("512Ki", 512 << 10),
            ("1Mi", 1 << 20),
            ("2Gi", 2 << 30),
            ("3k", 3000),
        ] {
            assert_eq!(Bytes::read(text), Some(Bytes(size)), "{text}");
        }
        for text in ["", "Ki", "-1", "1.5Mi", "1TB", "+5", "99999999999Gi"] {
            assert_eq!(Bytes::read(text), None, "{text}");
        }
    }

    #[test]
    fn no_bound_is_beyond_every_bound() {
        let none = Option::<Duration>::read("none").expect("a value");
        let some = Option::<Duration>::read("1s").expect("a value");
        assert!(some.within(&none) && none.within(&none) && some.within(&some));
        assert!(!none.within(&some));
    }

    #[test]
    fn choices_have_an_order() {
        assert!(Reach::Listen.within(&Reach::All) && !Reach::All.within(&Reach::Listen));
        assert!(
            RootAccess::ReadOnly.within(&RootAccess::ReadWrite)
                && !RootAccess::ReadOnly.within(&RootAccess::None)
        );
        assert_eq!(Reach::read("ALL"), None);
    }
}
