//! Rows over one axis. No crate draws these few shapes in fewer lines than it takes to configure it.

use std::fmt::Write as _;

/// A picture: rows from above, values from zero to the right.
pub(crate) struct Chart {
    pub(crate) title: String,
    /// What the colours stand for; empty where there is one.
    pub(crate) legend: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) label: String,
    /// Written behind the marks.
    pub(crate) value: Option<f64>,
    pub(crate) marks: Vec<Mark>,
}

/// What stands in a row.
pub(crate) enum Mark {
    Dot(f64),
    Line(f64),
    Interval(f64, f64),
    Bar { from: f64, to: f64, color: usize },
}

impl Mark {
    fn end(&self) -> f64 {
        match self {
            Self::Dot(at) | Self::Line(at) | Self::Interval(_, at) | Self::Bar { to: at, .. } => {
                *at
            }
        }
    }
}

/// Okabe and Ito's colours, which people with any sight tell apart.
const COLORS: [&str; 6] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00",
];
const WIDTH: f64 = 860.0;
const ROW: f64 = 26.0;
/// Left of the axis's zero.
const LABELS: f64 = 210.0;
/// Right of its end.
const VALUES: f64 = 70.0;

impl Chart {
    /// The picture as a document.
    pub(crate) fn render(&self) -> String {
        let top = if self.legend.is_empty() { 40.0 } else { 62.0 };
        #[allow(clippy::cast_precision_loss, reason = "some tens of rows")]
        let bottom = top + ROW * self.rows.len() as f64;
        let marks = self.rows.iter().flat_map(|row| &row.marks);
        let step = round_step(marks.map(Mark::end).fold(0.0, f64::max));
        let ends = self.rows.iter().flat_map(|row| &row.marks).map(Mark::end);
        let most = (ends.fold(0.0, f64::max) / step).ceil().max(1.0) * step;
        let x = |value: f64| LABELS + value / most * (WIDTH - LABELS - VALUES);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
            bottom + 30.0
        );
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>",
            escaped(&self.title)
        );
        let mut left = LABELS;
        for (name, color) in self.legend.iter().zip(COLORS) {
            let _ = writeln!(
                svg,
                "<rect x=\"{left:.1}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{color}\"/>\
                 <text x=\"{:.1}\" y=\"47\">{}</text>",
                left + 17.0,
                escaped(name)
            );
            #[allow(clippy::cast_precision_loss, reason = "a word")]
            let width = name.len() as f64 * 8.0;
            left += width + 40.0;
        }
        let mut tick = 0.0;
        while tick <= most * 1.001 {
            let _ = writeln!(
                svg,
                "<path d=\"M{0:.1} {top:.1}V{bottom:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{0:.1}\" y=\"{1:.1}\" text-anchor=\"middle\" fill=\"#555\">{tick}</text>",
                x(tick),
                bottom + 18.0
            );
            tick += step;
        }
        let mut middle = top + ROW / 2.0;
        for row in &self.rows {
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LABELS - 10.0,
                middle + 4.5,
                escaped(&row.label)
            );
            for mark in &row.marks {
                let _ = writeln!(svg, "{}", shape(mark, middle, x));
            }
            if let Some(value) = row.value {
                let end = row.marks.iter().map(Mark::end).fold(0.0, f64::max);
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\">{value:.2}</text>",
                    x(end) + 8.0,
                    middle + 4.5
                );
            }
            middle += ROW;
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn shape(mark: &Mark, middle: f64, x: impl Fn(f64) -> f64) -> String {
    match *mark {
        Mark::Dot(at) => format!(
            "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"2.5\" fill=\"{}\" fill-opacity=\"0.3\"/>",
            x(at),
            COLORS[0]
        ),
        Mark::Line(at) => format!(
            "<path d=\"M{:.1} {:.1}v18\" stroke=\"{}\" stroke-width=\"2.5\"/>",
            x(at),
            middle - 9.0,
            COLORS[5]
        ),
        Mark::Interval(low, high) => format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"10\" fill=\"{}\" fill-opacity=\"0.5\"/>",
            x(low),
            middle - 5.0,
            x(high) - x(low),
            COLORS[5]
        ),
        Mark::Bar { from, to, color } => format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{}\"/>",
            x(from),
            middle - 8.0,
            x(to) - x(from),
            COLORS[color % COLORS.len()]
        ),
    }
}

/// 1, 2 or 5 times a power of ten, of which four to ten reach `most`.
fn round_step(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10.0_f64.powf((most / 10.0).log10().ceil());
    let fits = |step: &f64| most / step >= 4.0;
    [power, power / 2.0, power / 5.0]
        .into_iter()
        .find(fits)
        .unwrap_or(power / 5.0)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::{Chart, Mark, Row, round_step};

    #[test]
    fn an_axis_has_four_to_ten_round_steps() {
        for (most, step) in [
            (100.0, 10.0),
            (73.0, 10.0),
            (8.1, 1.0),
            (45.0, 10.0),
            (24.0, 5.0),
            (0.9, 0.1),
        ] {
            let found = round_step(most);
            assert!((found - step).abs() < step * 1e-6, "{most}: {found}");
        }
    }

    #[test]
    fn what_is_in_a_row_stands_where_its_value_is() {
        let chart = Chart {
            title: "a < b".to_owned(),
            legend: vec!["one"],
            rows: vec![Row {
                label: "row".to_owned(),
                value: Some(10.0),
                marks: vec![
                    Mark::Bar {
                        from: 0.0,
                        to: 10.0,
                        color: 0,
                    },
                    Mark::Dot(5.0),
                ],
            }],
        };
        let svg = chart.render();
        // The axis takes 860 - 210 - 70 for ten units.
        assert!(svg.contains("<circle cx=\"500.0\""), "{svg}");
        assert!(svg.contains("width=\"580.0\" height=\"16\""), "{svg}");
        assert!(
            svg.contains("a &lt; b") && svg.ends_with("</svg>\n"),
            "{svg}"
        );
    }
}
