//! `sampan perf-map`: the names of a guest's functions, where tools that know perf maps look for them.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::arguments::PerfMap;
use crate::code::Code;
use crate::failure::{Failure, Kind, Outcome};
use crate::observed::Process;
use crate::output::{Screen, Text};

/// Where they look (linux, `tools/perf/Documentation/jit-interface.txt`).
const PLACE: &str = "/tmp";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    pid: i32,
    file: PathBuf,
    functions: usize,
}

pub(crate) fn perf_map(arguments: &PerfMap, screen: &mut Screen<'_>) -> Outcome<u8> {
    let process = Process::find(&arguments.guest)?;
    let code = Code::of(process.pid)?;
    let file = write(Path::new(PLACE), process.pid, &lines(&code))?;
    let mut text = Text::default();
    text.line(format!(
        "{}: {} functions of {}",
        file.display(),
        code.functions().len(),
        process.name
    ));
    let answer = Answer {
        pid: process.pid,
        file,
        functions: code.functions().len(),
    };
    screen.show(&answer, text)?;
    Ok(0)
}

/// `START SIZE NAME`, numbers in hexadecimal.
fn lines(code: &Code) -> String {
    let mut lines = String::new();
    for function in code.functions() {
        let (start, size, name) = (function.start, function.size, &function.name);
        // Writing to text does not fail.
        let _ = writeln!(lines, "{start:x} {size:x} {name}");
    }
    lines
}

/// Puts the file there whole. Everybody may write to that directory: what lies there by the name and is not our own file
/// stays, and no link is followed.
fn write(place: &Path, pid: i32, lines: &str) -> Outcome<PathBuf> {
    let path = place.join(format!("perf-{pid}.map"));
    let failed = |error: io::Error| {
        Failure::at(
            Kind::System,
            format!("cannot write {}", path.display()),
            error,
        )
    };
    match std::fs::symlink_metadata(&path) {
        Ok(there) if !there.is_file() || there.uid() != rustix::process::geteuid().as_raw() => {
            return Err(Failure::new(
                Kind::System,
                format!(
                    "{} is there and not ours: look at it, and remove it",
                    path.display()
                ),
            ));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = tempfile::NamedTempFile::new_in(place).map_err(failed)?;
    file.write_all(lines.as_bytes()).map_err(failed)?;
    let readable = std::fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(failed)?;
    // A name is replaced, not what it leads to; in a directory with the sticky bit only one of ours can be.
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_our_own_file_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path();
        let path = write(place, 5, "1 2 one\n").expect("written");
        assert_eq!(path, place.join("perf-5.map"));
        write(place, 5, "1 2 two\n").expect("replaced");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "1 2 two\n");
        let victim = place.join("victim");
        std::fs::write(&victim, "mine").expect("written");
        symlink(&victim, place.join("perf-6.map")).expect("a link");
        std::fs::create_dir(place.join("perf-7.map")).expect("made");
        for pid in [6, 7] {
            let text = write(place, pid, "x").expect_err("not ours").to_string();
            assert!(text.contains("is there and not ours"), "{text}");
        }
        assert_eq!(std::fs::read_to_string(&victim).expect("read"), "mine");
        assert!(place.join("perf-6.map").is_symlink());
        assert_eq!(std::fs::read_dir(place).expect("listed").count(), 4);
    }
}
