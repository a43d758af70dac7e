//! Samples of a measurement, and what can be said from them with which confidence.

use serde::Serialize;

/// Milliseconds, one for each round in the order of the rounds: the samples of two contestants at one place were taken in
/// the same round.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Samples(Vec<f64>);

/// A figure, and the interval that holds it with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Estimate {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// How often the rounds are drawn anew. Percentile intervals want a thousand or more (Efron and Tibshirani, "An
/// Introduction to the Bootstrap", section 13.3).
const RESAMPLES: usize = 2000;

impl Samples {
    pub(crate) fn push(&mut self, duration: std::time::Duration) {
        // Whole microseconds: more is noise, and makes the raw data long.
        self.0.push((duration.as_secs_f64() * 1e6).round() / 1000.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn all(&self) -> &[f64] {
        &self.0
    }

    /// The smallest sample that at least `share` (0 to 1) of all samples do not exceed (nearest rank).
    /// None without samples.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        quantile(&mut self.0.clone(), share)
    }

    pub(crate) fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// The median with its interval. None without samples.
    pub(crate) fn estimate(&self) -> Option<Estimate> {
        bootstrap(self.len(), |rounds| drawn_median(&self.0, rounds))
    }

    /// This median as a multiple of another's. Rounds are drawn for both together: what a bad moment of the machine did to
    /// a round, it did to both, and it does not widen the interval. None unless both have samples.
    pub(crate) fn ratio_to(&self, other: &Self) -> Option<Estimate> {
        bootstrap(self.len().min(other.len()), |rounds| {
            let below = drawn_median(&other.0, rounds)?;
            Some(drawn_median(&self.0, rounds)? / below).filter(|ratio| ratio.is_finite())
        })
    }
}

fn quantile(samples: &mut [f64], share: f64) -> Option<f64> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank within the samples' number"
    )]
    let rank = (share * samples.len() as f64).ceil() as usize;
    let place = rank.max(1) - 1;
    if place >= samples.len() {
        return None;
    }
    let (_, found, _) = samples.select_nth_unstable_by(place, f64::total_cmp);
    Some(*found)
}

fn drawn_median(samples: &[f64], rounds: &[usize]) -> Option<f64> {
    let mut drawn: Vec<f64> = rounds.iter().map(|&round| samples[round]).collect();
    quantile(&mut drawn, 0.5)
}

/// The figure of `rounds` rounds as they were, between the 2.5th and the 97.5th percentile of what it is when as many
/// rounds are drawn from them with replacement.
fn bootstrap(rounds: usize, figure: impl Fn(&[usize]) -> Option<f64>) -> Option<Estimate> {
    let mut drawn: Vec<usize> = (0..rounds).collect();
    let value = figure(&drawn)?;
    let mut random = SplitMix(0);
    let mut figures = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for round in &mut drawn {
            *round = random.below(rounds);
        }
        figures.extend(figure(&drawn));
    }
    Some(Estimate {
        value,
        low: quantile(&mut figures, 0.025)?,
        high: quantile(&mut figures, 0.975)?,
    })
}

/// Steele, Lea and Flood's generator ("Fast Splittable Pseudorandom Number Generators", 2014): the same draws in every
/// run, so the same samples give the same intervals.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        // The high half of the product: even enough for bounds far below 2^32.
        ((u128::from(bits) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Samples, SplitMix};

    fn samples(milliseconds: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::default();
        for sample in milliseconds {
            samples.push(Duration::from_millis(sample));
        }
        samples
    }

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        let samples = samples((1..=100).rev());
        assert_eq!(samples.median(), Some(50.0));
        assert_eq!(samples.quantile(0.95), Some(95.0));
        assert_eq!(samples.quantile(0.99), Some(99.0));
        assert_eq!(samples.quantile(1.0), Some(100.0));
        assert_eq!(Samples::default().median(), None);
    }

    #[test]
    fn the_interval_of_a_median_holds_it_and_shrinks_with_more_samples() {
        let few = samples((0..20).map(|sample| sample * 5))
            .estimate()
            .expect("samples");
        let many = samples(0..100).estimate().expect("samples");
        assert!(few.low < few.value && few.value < few.high, "{few:?}");
        assert!(
            many.high - many.low < few.high - few.low,
            "{few:?} {many:?}"
        );
        // Of 100 even samples the exact interval by order statistics is the 40th to the 60th.
        assert!(
            (many.low - 39.0).abs() <= 3.0 && (many.high - 60.0).abs() <= 3.0,
            "{many:?}"
        );
        assert_eq!(Samples::default().estimate(), None);
    }

    #[test]
    fn what_befalls_both_in_a_round_does_not_widen_their_ratio() {
        let noisy: Vec<u64> = (0..60).map(|round| 10 + 5 * (round * 37 % 60)).collect();
        let twice = samples(noisy.iter().map(|sample| 2 * sample));
        let once = samples(noisy.clone());
        let paired = twice.ratio_to(&once).expect("samples");
        assert!(
            (paired.low - 2.0).abs() < 1e-9 && (paired.high - 2.0).abs() < 1e-9,
            "{paired:?}"
        );
        let turned = samples(noisy.iter().map(|sample| 2 * sample).rev());
        let apart = turned.ratio_to(&once).expect("samples");
        assert!(apart.high > paired.high, "{apart:?}");
        assert_eq!(once.ratio_to(&Samples::default()), None);
    }

    #[test]
    fn every_round_is_drawn_about_as_often() {
        let mut random = SplitMix(0);
        let mut drawn = [0; 10];
        for _ in 0..10_000 {
            drawn[random.below(10)] += 1;
        }
        assert!(
            drawn.iter().all(|&times| (900..1100).contains(&times)),
            "{drawn:?}"
        );
    }
}
