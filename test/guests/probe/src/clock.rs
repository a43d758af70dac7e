//! Time and chance.

use crate::Answer;
use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime};

/// Says that it sleeps, sleeps, says that it woke.
pub(crate) fn sleep(milliseconds: u64) -> Answer {
    println!("sleeping {milliseconds}");
    io::stdout().flush()?;
    std::thread::sleep(Duration::from_millis(milliseconds));
    Ok(Some("awake".to_string()))
}

/// A numbered line every so many milliseconds, for ever: shows when a guest runs and when it rests.
pub(crate) fn tick(milliseconds: u64) -> Answer {
    for number in 0_u64.. {
        println!("tick {number}");
        io::stdout().flush()?;
        std::thread::sleep(Duration::from_millis(milliseconds));
    }
    Ok(None)
}

/// `wall SECONDS` since 1970, and `monotonic yes` if the other clock moved forward.
pub(crate) fn read() -> Answer {
    let before = Instant::now();
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    std::thread::sleep(Duration::from_millis(1));
    let forward = if before.elapsed() >= Duration::from_millis(1) {
        "yes"
    } else {
        "no"
    };
    Ok(Some(format!("wall {wall}\nmonotonic {forward}")))
}

/// `bytes` random bytes in hexadecimal, one line.
pub(crate) fn random(bytes: u64) -> Answer {
    let mut text = String::new();
    for byte in random_bytes(bytes as usize)? {
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(Some(text))
}

#[cfg(target_env = "p1")]
fn random_bytes(length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    // SAFETY: the buffer is ours alone and has exactly the length that is given.
    unsafe { wasip1::random_get(bytes.as_mut_ptr(), bytes.len()) }
        .map_err(|errno| io::Error::from_raw_os_error(errno.raw().into()))?;
    Ok(bytes)
}

#[cfg(target_env = "p2")]
fn random_bytes(length: usize) -> io::Result<Vec<u8>> {
    Ok(wasip2::random::random::get_random_bytes(length as u64))
}
