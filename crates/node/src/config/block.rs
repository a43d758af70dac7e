//! Our part of a file that belongs to others: a block at its end, between two lines that nobody else writes. Every
//! other byte stays, and taking the block out gives the bytes that were there before.
use super::ConfigError;

const BEGIN: &str = "# begin of what sampan-node has added (it takes this out again itself)";
/// The same, where the last line before it had no end: taking the block out takes that away again.
const BEGIN_JOINED: &str = "# begin of what sampan-node has added to a last line without an end (it takes this out again itself)";
const END: &str = "# end of what sampan-node has added\n";

/// The bytes with our tables at the end; an older block of ours is replaced.
///
/// # Errors
/// When an older block has no end.
pub(crate) fn add(bytes: &[u8], tables: &str) -> Result<Vec<u8>, ConfigError> {
    let mut all = remove(bytes)?;
    let joined = all.last().is_some_and(|last| *last != b'\n');
    if joined {
        all.push(b'\n');
    }
    let begin = if joined { BEGIN_JOINED } else { BEGIN };
    all.extend_from_slice(format!("{begin}\n{tables}{END}").as_bytes());
    Ok(all)
}

/// The bytes without our block; what others have put behind it stays.
///
/// # Errors
/// When the block has no end.
pub fn remove(bytes: &[u8]) -> Result<Vec<u8>, ConfigError> {
    let Some((start, begin)) = begin(bytes) else {
        return Ok(bytes.to_vec());
    };
    let Some(length) = find(&bytes[start..], END.as_bytes()) else {
        return Err(ConfigError::Torn(begin.to_owned()));
    };
    let (before, after) = (&bytes[..start], &bytes[start + length + END.len()..]);
    // The end of line that we added is another's by now if something follows.
    let before = match before.split_last() {
        Some((b'\n', rest)) if begin == BEGIN_JOINED && after.is_empty() => rest,
        _ => before,
    };
    // Nothing keeps a second block from being there but that we never write one; be sure.
    remove(&[before, after].concat())
}

/// Whether our block is there.
#[must_use]
pub fn holds(bytes: &[u8]) -> bool {
    begin(bytes).is_some()
}

/// Where our block begins, and by which line.
fn begin(bytes: &[u8]) -> Option<(usize, &'static str)> {
    [BEGIN, BEGIN_JOINED].into_iter().find_map(|line| {
        let at = find(bytes, format!("{line}\n").as_bytes())?;
        (at == 0 || bytes[at - 1] == b'\n').then_some((at, line))
    })
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
}
