//! Which program a request means that executes something in a wasm container.

use std::fs::File;
use std::os::fd::AsFd;

use plan::{Entry, GuestPlan};

use crate::container::Container;
use crate::debug;
use crate::failure::{Failure, Kind, Outcome};
use crate::guest::{self, Bytes, Program};
use crate::launch::Beside;

/// What was meant.
pub(crate) enum Chosen {
    /// The container's own program.
    Own,
    /// Another one.
    Other(Bytes),
}

/// How many wasm files a message names.
const NAMED: usize = 5;

/// Finds what `guest.entry` names: `#export` and the name of the container's own program mean that program, `sampan` the
/// debug guest, everything else a wasm file in the container's own view, volumes included.
pub(crate) async fn choose(
    guest: &mut GuestPlan,
    container: &Container,
    beside: &Beside,
) -> Outcome<Chosen> {
    let own = &beside.launch.guest;
    if guest.entry.path == debug::NAME {
        guest.args = debug::args(container, guest);
        return Bytes::ours(debug::NAME, debug::GUEST).map(Chosen::Other);
    }
    if names_own(&guest.entry, &own.entry) {
        return Ok(Chosen::Own);
    }
    let name = guest.args.first().cloned().unwrap_or_default();
    let root = format!("/proc/{}/root", container.main.pid());
    let open = File::open(&root).map_err(|error| {
        // Only a process that has ended has none.
        let why = format!("has ended: {error}");
        container.main.in_wrong_phase(&why)
    })?;
    // Through the first process's own view: its volumes are mounted there.
    match guest::in_rootfs(open.as_fd(), guest, &[]).await {
        Ok(Program::Wasm(bytes)) => Ok(Chosen::Other(bytes)),
        Ok(Program::Native) => Err(Failure::new(
            Kind::Invalid,
            format!(
                "cannot execute `{name}`: it is a native program, and in the jail of a wasm container no native code is executed; what can be: {}",
                offers(own, &root)
            ),
        )),
        Err(failure) if failure.is_not_found() => Err(Failure::new(
            Kind::NotFound,
            format!(
                "cannot execute `{name}`: {failure}; what can be: {}",
                offers(own, &root)
            ),
        )),
        Err(failure) => Err(failure.of(&format!("cannot execute `{name}`"))),
    }
}

/// Whether an entry means the container's own program: an export alone, or its name as it stands in `args[0]`, with or
/// without the directories.
fn names_own(wanted: &Entry, own: &Entry) -> bool {
    if wanted.path.is_empty() {
        return wanted.export.is_some();
    }
    let base = own.path.rsplit('/').next().unwrap_or_default();
    wanted.path == own.path || wanted.path == base
}

/// What could have been executed, for whoever asked for something else.
fn offers(own: &GuestPlan, root: &str) -> String {
    let mut offers = Vec::new();
    if !own.entry.path.is_empty() {
        offers.push(format!(
            "`{}` (the container's own program)",
            own.entry.path
        ));
    }
    offers.push("`#EXPORT` (a function of it)".to_owned());
    let mut files: Vec<String> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".wasm") || name.ends_with(".wat"))
        .filter(|name| !name.contains(char::is_control) && format!("/{name}") != own.entry.path)
        .collect();
    files.sort_unstable();
    offers.extend(files.iter().take(NAMED).map(|name| format!("`/{name}`")));
    offers.push(format!("`{}` (look around)", debug::NAME));
    offers.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_the_containers_own_program() {
        let own = Entry::parse("/bin/app.wasm#serve");
        for (wanted, means) in [
            ("/bin/app.wasm", true),
            ("app.wasm", true),
            ("app.wasm#other", true),
            ("#other", true),
            ("/app.wasm", false),
            ("bin/app.wasm", false),
            ("#", false),
            ("sh", false),
        ] {
            assert_eq!(names_own(&Entry::parse(wanted), &own), means, "{wanted}");
        }
        // Of an image with a wasm layer, whose name says nothing.
        assert!(names_own(&Entry::parse("/"), &Entry::parse("/")));
        assert!(!names_own(&Entry::parse("x"), &Entry::parse("/")));
        assert!(!names_own(&Entry::parse("x"), &Entry::parse("#serve")));
    }
}
