//! Figures as text: aligned tables, and how a number is written in them.

use std::fmt::Write as _;

use crate::statistics::Estimate;

/// Text in aligned columns: the first to the left, all others to the right.
#[derive(Default)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn new<T: AsRef<str>>(head: &[T]) -> Self {
        Self(vec![
            head.iter().map(|cell| cell.as_ref().to_owned()).collect(),
        ])
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

/// Two decimals, or a dash.
pub(crate) fn hundredths(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

/// As [`decimal`], with the interval.
pub(crate) fn interval(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(
        || "-".to_owned(),
        |found| format!("{:.1} ({:.1}-{:.1})", found.value, found.low, found.high),
    )
}

/// A multiple with its interval.
pub(crate) fn multiple(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(
        || "-".to_owned(),
        |found| format!("{:.2} ({:.2}-{:.2})", found.value, found.low, found.high),
    )
}

/// `value` as a multiple of `other`; none where one of them was not measured.
pub(crate) fn ratio(value: Option<f64>, other: Option<f64>) -> Option<f64> {
    value
        .zip(other)
        .filter(|(_, other)| *other > 0.0)
        .map(|(value, other)| value / other)
}

#[cfg(test)]
mod tests {
    use super::{Table, hundredths, multiple, ratio};
    use crate::statistics::Estimate;

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
        assert_eq!(hundredths(ratio(Some(3.0), Some(2.0))), "1.50");
        assert_eq!(hundredths(ratio(Some(3.0), None)), "-");
        assert_eq!(hundredths(ratio(None, Some(2.0))), "-");
        assert_eq!(multiple(None), "-");
        let estimate = Estimate {
            value: 1.2,
            low: 1.1,
            high: 1.34,
        };
        assert_eq!(multiple(Some(estimate)), "1.20 (1.10-1.34)");
    }
}
