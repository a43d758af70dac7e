//! The access log: one line of JSON for every request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, Method, StatusCode};
use serde::Serialize;

use crate::http::call::Call;
use crate::stdio::Output;

/// By which a request is followed through a system; what a client or proxy sends is kept.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of an id that is taken from a client.
const LONGEST_ID: usize = 128;
/// Characters of a path that are written.
const LONGEST_PATH: usize = 2048;

/// What is known of a request when it comes.
pub(super) struct Entry {
    pub(super) time: SystemTime,
    pub(super) method: Method,
    pub(super) path: String,
}

/// As it is written.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    method: &'a str,
    path: &'a str,
    status: u16,
    bytes: u64,
    ms: u64,
    id: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    aborted: bool,
}

impl Entry {
    /// Writes the line. `complete` is false where the client went away before the end.
    pub(super) fn write(&self, call: &Call, status: StatusCode, bytes: u64, complete: bool) {
        let end = self.path.char_indices().nth(LONGEST_PATH);
        let line = Line {
            time: rfc3339(self.time),
            method: self.method.as_str(),
            path: &self.path[..end.map_or(self.path.len(), |(end, _)| end)],
            status: status.as_u16(),
            bytes,
            ms: u64::try_from(call.arrived.elapsed().as_millis()).unwrap_or(u64::MAX),
            id: call.id.as_deref().unwrap_or_default(),
            aborted: !complete,
        };
        // Text and numbers always have a form in JSON.
        if let Ok(mut line) = serde_json::to_string(&line) {
            line.push('\n');
            // It is JSON already, whatever the guest's lines are.
            let _ = Output::Stderr.write_all(line.as_bytes());
        }
    }
}

/// The id that the request brings, if it can stand in a log; else a new one.
pub(super) fn id(headers: &HeaderMap) -> Arc<str> {
    let given = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let given = given.filter(|id| {
        (1..=LONGEST_ID).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b))
    });
    given.map_or_else(new_id, Arc::from)
}

/// Unlike any other of this server, and of others with near certainty.
fn new_id() -> Arc<str> {
    static START: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let start = START.get_or_init(|| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(SystemTime::now())
    });
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{start:016x}-{number:x}").into()
}

/// Time of the day, UTC, with milliseconds (RFC 3339).
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

/// The Gregorian date of a day since 1970: years are counted from March, so that the day that leap years have more is
/// the last one.
fn date(days: u64) -> (u64, u64, u64) {
    // Days of 400, 100, 4 years and of one; 719468 from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_795_273_200, "2026-11-21T15:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn an_id_that_could_forge_a_line_is_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, "abc-123".parse().expect("a value"));
        assert_eq!(&*id(&headers), "abc-123");
        for wrong in ["", "a b", "a\"b", "[x]", &"x".repeat(129)] {
            headers.insert(REQUEST_ID, wrong.parse().expect("a value"));
            assert_ne!(&*id(&headers), wrong);
        }
        assert_ne!(id(&HeaderMap::new()), id(&HeaderMap::new()));
    }
}
