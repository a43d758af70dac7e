use serde::{Deserialize, Serialize};

use super::{Context, TraceId};

/// As many of the numbers of 63 bits as there are.
const ALL: u64 = 1 << 63;

/// Which traces are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampler {
    /// Whether what was decided for a trace that comes from outside holds here too.
    pub follows: bool,
    /// Of traces that begin here, or of all: those whose last 63 bits, without the very last, are a number below this (2^63:
    /// all). Every program of OpenTelemetry with the same ratio decides the same.
    pub below: u64,
}

/// No sampler can be read from these words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    /// There is none of this name.
    #[error(
        "OTEL_TRACES_SAMPLER: there is no sampler `{0}` here: always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio"
    )]
    Name(String),
    /// The ratio is none.
    #[error("OTEL_TRACES_SAMPLER_ARG: `{0}` is no number from 0 to 1")]
    Ratio(String),
}

impl Default for Sampler {
    /// OpenTelemetry's: `parentbased_always_on`.
    fn default() -> Self {
        Self {
            follows: true,
            below: ALL,
        }
    }
}

impl Sampler {
    /// What `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say; empty ones say nothing.
    ///
    /// # Errors
    /// [`SamplerError`]. (OpenTelemetry would go on with the default: a node that traces everything because of a slip of the
    /// pen is worse than one that says so.)
    pub fn read(name: Option<&str>, argument: Option<&str>) -> Result<Self, SamplerError> {
        let name = match name.map(str::trim) {
            None | Some("") => return Ok(Self::default()),
            Some(name) => name,
        };
        let (follows, bare) = match name.strip_prefix("parentbased_") {
            Some(bare) => (true, bare),
            None => (false, name),
        };
        let below = match bare {
            "always_on" => ALL,
            "always_off" => 0,
            "traceidratio" => match argument.map(str::trim) {
                None | Some("") => ALL,
                Some(ratio) => bound(ratio)?,
            },
            _ => return Err(SamplerError::Name(name.to_owned())),
        };
        Ok(Self { follows, below })
    }

    /// Whether this trace is kept.
    #[must_use]
    pub fn takes(&self, parent: Option<&Context>, trace: TraceId) -> bool {
        match parent {
            Some(parent) if self.follows => parent.sampled,
            _ => (trace.number() as u64) >> 1 < self.below,
        }
    }
}

fn bound(ratio: &str) -> Result<u64, SamplerError> {
    let number: f64 = ratio
        .parse()
        .map_err(|_| SamplerError::Ratio(ratio.to_owned()))?;
    if !(0.0..=1.0).contains(&number) {
        return Err(SamplerError::Ratio(ratio.to_owned()));
    }
    Ok((number * ALL as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(sampled: bool) -> Context {
        Context::new(sampled)
    }

    #[test]
    fn names_are_those_of_opentelemetry() {
        let read = |name: &str, argument: Option<&str>| Sampler::read(Some(name), argument);
        let of = |follows, below| Ok(Sampler { follows, below });
        assert_eq!(Sampler::read(None, Some("0.5")), Ok(Sampler::default()));
        assert_eq!(read("", None), Ok(Sampler::default()));
        assert_eq!(read("always_on", None), of(false, ALL));
        assert_eq!(read("always_off", None), of(false, 0));
        assert_eq!(read("traceidratio", None), of(false, ALL));
        assert_eq!(read("traceidratio", Some("0.25")), of(false, ALL / 4));
        assert_eq!(read("traceidratio", Some("0")), of(false, 0));
        assert_eq!(read("traceidratio", Some("1")), of(false, ALL));
        assert_eq!(read("parentbased_always_on", None), of(true, ALL));
        assert_eq!(read("parentbased_always_off", None), of(true, 0));
        assert_eq!(
            read("parentbased_traceidratio", Some(" 0.5 ")),
            of(true, ALL / 2)
        );
        for wrong in ["jaeger_remote", "parentbased_", "ALWAYS_ON", "parentbased"] {
            assert_eq!(read(wrong, None), Err(SamplerError::Name(wrong.to_owned())));
        }
        for wrong in ["-0.1", "1.1", "NaN", "half", "inf"] {
            let refused = Err(SamplerError::Ratio(wrong.to_owned()));
            assert_eq!(read("traceidratio", Some(wrong)), refused);
        }
    }

    #[test]
    fn a_parent_decides_where_it_is_followed() {
        let trace = TraceId::new();
        let follows = Sampler {
            follows: true,
            below: 0,
        };
        assert!(follows.takes(Some(&parent(true)), trace));
        assert!(!follows.takes(Some(&parent(false)), trace));
        assert!(!follows.takes(None, trace));
        let every = Sampler {
            follows: false,
            below: ALL,
        };
        assert!(every.takes(Some(&parent(false)), trace) && every.takes(None, trace));
        assert!(Sampler::default().takes(None, trace));
        assert!(!Sampler::default().takes(Some(&parent(false)), trace));
    }

    #[test]
    fn a_ratio_is_kept_to_and_everywhere_the_same() {
        let sampler = Sampler::read(Some("traceidratio"), Some("0.25")).expect("known");
        let kept = (0..20_000)
            .filter(|_| sampler.takes(None, TraceId::new()))
            .count();
        assert!((4_500..5_500).contains(&kept), "{kept} of 20,000");
        // OpenTelemetry's own: the low 64 bits, halved, below ratio * 2^63.
        for (id, taken) in [
            ("00000000000000000000000000000001", true),
            ("ffffffffffffffff3fffffffffffffff", true),
            ("00000000000000004000000000000000", false),
            ("0000000000000001ffffffffffffffff", false),
        ] {
            assert_eq!(
                sampler.takes(None, TraceId::of_hex(id).expect("an id")),
                taken,
                "{id}"
            );
        }
    }
}
