//! Standard input, output and error.

use crate::Answer;
use std::io::{self, BufRead, IsTerminal, Write};

/// One period of what `flood` writes: 64 KiB.
const PERIOD: usize = 65_536;

/// Standard input to standard output, every byte as it is, until the end of input.
pub(crate) fn copy() -> Answer {
    io::copy(&mut io::stdin().lock(), &mut raw_stdout())?;
    Ok(None)
}

/// Waits for the end of input and throws away what comes; says first that it waits.
pub(crate) fn block() -> Answer {
    println!("waiting for the end of input");
    io::stdout().flush()?;
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(Some("end of input".to_string()))
}

/// Exactly `bytes` bytes: byte number i is `(i mod 65536) * 31 mod 251`, so that a lost, doubled or
/// moved piece shows.
pub(crate) fn flood(bytes: u64) -> Answer {
    let pattern: Vec<u8> = (0..PERIOD).map(|i| (i * 31 % 251) as u8).collect();
    let mut out = raw_stdout();
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(PERIOD as u64) as usize;
        out.write_all(&pattern[..piece])?;
        left -= piece as u64;
    }
    Ok(None)
}

pub(crate) fn stderr(text: &str) -> Answer {
    eprintln!("{text}");
    Ok(None)
}

/// Ten lines on each stream in turn, flushed one by one.
pub(crate) fn both() -> Answer {
    for line in 0..10 {
        println!("out {line}");
        io::stdout().flush()?;
        eprintln!("err {line}");
    }
    Ok(None)
}

/// Which of the three is a terminal.
pub(crate) fn terminals() -> Answer {
    let word = |is: bool| if is { "terminal" } else { "none" };
    Ok(Some(format!(
        "stdin {}\nstdout {}\nstderr {}",
        word(io::stdin().is_terminal()),
        word(io::stdout().is_terminal()),
        word(io::stderr().is_terminal()),
    )))
}

/// Says `got LINE` for every line of standard input; says first that it reads.
pub(crate) fn lines() -> Answer {
    println!("reading");
    for line in io::stdin().lock().lines() {
        println!("got {}", line?);
        io::stdout().flush()?;
    }
    Ok(Some("end of input".to_string()))
}

/// Standard output without the line buffer, which looks for line ends in binary data.
fn raw_stdout() -> impl Write {
    struct Unbuffered;

    impl Write for Unbuffered {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(rustix::io::write(rustix::stdio::stdout(), bytes)?)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    Unbuffered
}
