//! Who takes how long inside our own phases: the spans that our shim writes down at level debug, which containerd copies
//! into its log.
//!
//! A line is `TIME DEBUG create{id="x"}:spawn: close time.busy=1.2ms time.idle=3.4µs`; of what no span covers (the runner
//! before it is ready, the shim's `start` until it forks) an event tells: `laps open=1µs program=2µs enter=3µs` and `until
//! the fork id="x" took=4ms`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::statistics::Samples;

/// Steps by their path (`create`, `create:spawn`), in milliseconds, of one contestant.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Steps(BTreeMap<String, Samples>);

impl Steps {
    /// What the log says of the containers whose ids start with `name-` and a digit.
    pub(crate) fn of(log: &str, name: &str) -> Self {
        let mut steps = Self::default();
        for (id, path, took) in log.lines().filter_map(steps_in).flatten() {
            let number = id
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('-'));
            if number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
                steps.0.entry(path).or_default().push(took);
            }
        }
        steps
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Samples)> {
        self.0
            .iter()
            .map(|(path, samples)| (path.as_str(), samples))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Container, path and duration of what one line tells.
fn steps_in(line: &str) -> Option<Vec<(String, String, Duration)>> {
    const FORK: &str = "until the fork ";
    let (_, line) = line.split_once(" DEBUG ")?;
    let (line, quoted_id) = take_id(line)?;
    if let Some(fields) = line.strip_prefix(FORK) {
        let took = field(fields, "took")?;
        return Some(vec![(quoted_id, "command start".to_owned(), took)]);
    }
    let (path, told) = line.split_once(": ")?;
    if told.starts_with("close ") {
        let took = field(told, "time.busy")? + field(told, "time.idle")?;
        return Some(vec![(quoted_id, path.to_owned(), took)]);
    }
    let laps = told.strip_prefix("laps ")?;
    let of = |name| {
        Some((
            quoted_id.clone(),
            format!("{path}:{name}"),
            field(laps, name)?,
        ))
    };
    Some(
        ["open", "program", "enter"]
            .into_iter()
            .filter_map(of)
            .collect(),
    )
}

/// The line without its field `id`, and that field's value.
fn take_id(line: &str) -> Option<(String, String)> {
    let (before, rest) = line.split_once("id=\"")?;
    let (id, after) = rest.split_once('"')?;
    let line = if let Some(path) = before.strip_suffix('{') {
        format!("{path}{}", after.strip_prefix('}')?)
    } else {
        format!("{before}{}", after.trim_start())
    };
    Some((line, id.to_owned()))
}

/// The duration of a field, as Rust's `Debug` or tracing writes it.
fn field(fields: &str, name: &str) -> Option<Duration> {
    let text = fields
        .split(' ')
        .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))?;
    let unit = text.find(|letter: char| letter != '.' && !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "ns" => 1e-9,
        "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::Steps;

    #[test]
    fn each_step_of_a_contestant_is_found_under_its_path() {
        let log = "\
time=\"2026\" level=debug msg=\"DEBUG of another\"
2026-11-21T22:00:00.1Z DEBUG until the fork id=\"sampan-000001\" took=1.5ms
2026-11-21T22:00:00.1Z DEBUG create{id=\"sampan-000001\"}:spec: close time.busy=100µs time.idle=2.00µs
2026-11-21T22:00:00.2Z DEBUG create{id=\"sampan-000001\"}:runner: laps open=10µs program=1.25ms enter=2000ns
2026-11-21T22:00:00.2Z DEBUG create{id=\"sampan-000001\"}: close time.busy=3.00ms time.idle=1.00ms
2026-11-21T22:00:00.2Z DEBUG create{id=\"sampan-dense-000002\"}: close time.busy=9.00ms time.idle=1.00ms
2026-11-21T22:00:00.2Z  INFO container created id=\"sampan-000001\" pid=7
";
        let steps = Steps::of(log, "sampan");
        let found: Vec<(&str, Option<f64>)> = steps
            .all()
            .map(|(path, samples)| (path, samples.median()))
            .collect();
        let expected = [
            ("command start", 1.5),
            ("create", 4.0),
            ("create:runner:enter", 0.002),
            ("create:runner:open", 0.01),
            ("create:runner:program", 1.25),
            ("create:spec", 0.102),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((path, median), (wanted, ms)) in found.into_iter().zip(expected) {
            assert_eq!(path, wanted);
            assert!(
                (median.expect("a sample") - ms).abs() < 1e-6,
                "{path}: {median:?}"
            );
        }
        assert!(Steps::of(log, "base").is_empty());
    }
}
