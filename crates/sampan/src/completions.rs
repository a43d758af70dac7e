//! `sampan completions`: what a shell needs to complete our command lines.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::failure::{Failure, Kind, Outcome};
use crate::output::Screen;

pub(crate) fn completions(shell: Shell, screen: &mut Screen<'_>) -> Outcome<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "sampan", &mut script);
    screen
        .stdout
        .write_all(&script)
        .map_err(|error| Failure::at(Kind::System, "cannot write the script", error))?;
    Ok(0)
}
