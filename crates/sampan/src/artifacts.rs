//! `sampan store`: compiled programs, listed, removed, checked.

mod collect;
mod list;
mod verify;

use crate::arguments;
use crate::failure::Outcome;
use crate::output::Screen;

pub(crate) use verify::{Verdict, judge};

pub(crate) fn store(command: &arguments::Store, screen: &mut Screen<'_>) -> Outcome<u8> {
    match command {
        arguments::Store::Ls(arguments) => list::list(arguments, screen),
        arguments::Store::Gc(arguments) => collect::collect(arguments, screen),
        arguments::Store::Verify(arguments) => verify::verify(arguments, screen),
    }
}
