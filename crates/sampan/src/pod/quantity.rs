//! Kubernetes' quantities (apimachinery, `pkg/api/resource`): a decimal number and a suffix.

/// Suffixes and what they multiply by, as numerator and denominator.
const SUFFIXES: [(&str, u128, u128); 16] = [
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
    ("n", 1, 1_000_000_000),
    ("u", 1, 1_000_000),
    ("m", 1, 1000),
    ("k", 1000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000, 1),
    ("E", 1_000_000_000_000_000_000, 1),
    ("", 1, 1),
];

/// A quantity of bytes, rounded up as Kubernetes does; `None` if it is none, or more than an `i64`.
pub(crate) fn bytes(text: &str) -> Option<i64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 20 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let mut below = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let mut above = match exponent(suffix) {
        Some(exponent) if exponent >= 0 => 10_u128.pow(exponent.unsigned_abs()),
        Some(exponent) => {
            below *= 10_u128.pow(exponent.unsigned_abs());
            1
        }
        None => {
            let (_, times, parts) = SUFFIXES.into_iter().find(|(name, ..)| *name == suffix)?;
            below *= parts;
            times
        }
    };
    above = above.checked_mul(digits)?;
    i64::try_from(above.div_ceil(below)).ok()
}

/// The number after an `e` or `E`, as far as it makes sense.
fn exponent(suffix: &str) -> Option<i32> {
    let number: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-9..=18).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        for (text, value) in [
            ("0", Some(0)),
            ("128974848", Some(128_974_848)),
            ("129e6", Some(129_000_000)),
            ("129M", Some(129_000_000)),
            ("128974848000m", Some(128_974_848)),
            ("123Mi", Some(123 << 20)),
            ("1.5Gi", Some(3 << 29)),
            (".5Ki", Some(512)),
            ("1500m", Some(2)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("9Ei", None),
            ("64MB", None),
            ("64 Mi", None),
            ("Mi", None),
            ("", None),
            (".", None),
            ("-1", None),
            ("1.2.3", None),
            ("1e99", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(bytes(text), value, "{text}");
        }
    }
}
