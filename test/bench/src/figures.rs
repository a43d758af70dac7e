//! Turning samples into the figures of the tables.

use std::fmt::Write as _;

use serde::Serialize;

/// Milliseconds, in the order of measurement.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, duration: std::time::Duration) {
        self.0.push(duration.as_secs_f64() * 1000.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that at least `share` (0 to 1) of all samples do not exceed (nearest rank).
    /// None without samples.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank within the samples' number"
        )]
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied()
    }

    pub(crate) fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }
}

/// Text in aligned columns: the first to the left, all others to the right.
#[derive(Default)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self(vec![head.iter().map(|&cell| cell.to_owned()).collect()])
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.0
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or_default()
            })
            .collect();
        let mut text = String::new();
        for row in &self.0 {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                // Writing to a string cannot fail.
                let _ = if column == 0 {
                    write!(line, "  {cell:<width$}")
                } else {
                    write!(line, "  {cell:>width$}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// One decimal, or a dash where nothing was measured.
pub(crate) fn decimal(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

/// `value` as a multiple of `floor`.
pub(crate) fn ratio(value: Option<f64>, floor: Option<f64>) -> String {
    match (value, floor) {
        (Some(value), Some(floor)) if floor > 0.0 => format!("{:.2}x", value / floor),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Samples, Table, ratio};

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        let mut samples = Samples::default();
        for milliseconds in (1..=100).rev() {
            samples.push(Duration::from_millis(milliseconds));
        }
        assert_eq!(samples.median(), Some(50.0));
        assert_eq!(samples.quantile(0.95), Some(95.0));
        assert_eq!(samples.quantile(0.99), Some(99.0));
        assert_eq!(samples.quantile(1.0), Some(100.0));
        assert_eq!(Samples::default().median(), None);
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["side", "ms"]);
        table.row(vec!["runc".to_owned(), "42.0".to_owned()]);
        table.row(vec!["floor".to_owned(), "6.2".to_owned()]);
        assert_eq!(
            table.render(),
            "  side     ms\n  runc   42.0\n  floor   6.2\n"
        );
    }

    #[test]
    fn a_missing_figure_has_no_ratio() {
        assert_eq!(ratio(Some(3.0), Some(2.0)), "1.50x");
        assert_eq!(ratio(Some(3.0), None), "-");
        assert_eq!(ratio(None, Some(2.0)), "-");
    }
}
