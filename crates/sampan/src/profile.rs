//! `sampan profile`: where a guest spends its time, seen from outside.
//!
//! The kernel interrupts the guest's threads so many times a second and notes their stacks (`perf_event_open(2)`);
//! code that Cranelift has made keeps frame pointers, by which it finds the callers. Nothing of it is in the guest, or in
//! its code, while nobody looks. The host's own code has neither frame pointers nor names: it is one frame, `[host]`.

mod sampling;
mod shown;
mod stacks;

use std::time::{Duration, SystemTime};

use crate::arguments::{Profile, ProfileForm};
use crate::code::Code;
use crate::failure::{Failure, Kind, Outcome};
use crate::observed::Process;
use crate::output::{Screen, progress};
use stacks::Stacks;

pub(crate) fn profile(arguments: &Profile, screen: &mut Screen<'_>) -> Outcome<u8> {
    let process = Process::find(&arguments.guest)?;
    let code = Code::of(process.pid)?;
    let wanted = Duration::from_secs(arguments.seconds.into());
    let mut stacks = Stacks::new(&code, SystemTime::now());
    progress(&format!(
        "looking at {} for {} s",
        process.name, arguments.seconds
    ));
    let looked = sampling::sample(&process, wanted, arguments.frequency, |sample| {
        stacks.add(&sample);
    })?;
    if looked.time < wanted {
        screen.tell(&format!(
            "{} has ended after {:.1} s",
            process.name,
            looked.time.as_secs_f64()
        ));
    }
    if looked.lost > 0 {
        screen.tell(&format!(
            "{} samples were lost: a lower --frequency would not lose them",
            looked.lost
        ));
    }
    if stacks.is_empty() {
        return Err(Failure::new(
            Kind::Refused,
            format!(
                "{} used no processor in {:.1} s: there is nothing to show",
                process.name,
                looked.time.as_secs_f64()
            ),
        ));
    }
    let bytes = match arguments.format {
        ProfileForm::Table => {
            let table = shown::Table::of(&stacks, &process, &looked, arguments.frequency);
            let text = table.text();
            if arguments.to.is_none() {
                screen.show(&table, text)?;
                return Ok(0);
            }
            text.into_bytes()
        }
        ProfileForm::Folded => shown::folded(&stacks).join("\n").into_bytes(),
        ProfileForm::Svg => shown::flame_graph(&stacks, &process.name)?,
        ProfileForm::Firefox => {
            shown::firefox(&stacks, &process, &looked.threads, arguments.frequency)?
        }
    };
    let (attempt, written) = match &arguments.to {
        Some(path) => (
            format!("cannot write {}", path.display()),
            std::fs::write(path, bytes),
        ),
        None => (
            "cannot write the profile".to_owned(),
            screen.stdout.write_all(&bytes),
        ),
    };
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::at(Kind::System, attempt, error))
        }
        _ => Ok(0),
    }
}
