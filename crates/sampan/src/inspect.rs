//! `sampan inspect`: what a program needs, and whether it would run.

mod anatomy;
mod capability;
mod report;
mod text;

use std::path::Path;
use std::time::Instant;

use engine::{Survey, survey};
use plan::{EngineSettings, GuestPlan};

use crate::arguments::{Inspect, Program, Settings};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::{Screen, progress};
use crate::pod::{Described, Given, annotations};
use crate::source::Source;
use anatomy::Anatomy;
use report::{Compiled, Report};

pub(crate) fn inspect(arguments: &Inspect, screen: &mut Screen<'_>) -> Outcome<u8> {
    let program = &arguments.program;
    let source = Source::open(&program.name, &program.registry)?;
    let settings = &arguments.settings;
    let guest = alone(program, settings, settings.node_config.as_deref(), &source)?;
    let found = source.program(&guest.entry, &guest.cwd, &guest.env)?;
    let refused = |error: engine::CompileError| Failure::at(Kind::Refused, &found.name, error);
    let survey: Survey = survey(&found.bytes, &guest).map_err(refused)?;
    let compiled = if arguments.compile {
        Some(compile(&found.bytes, &guest.engine).map_err(refused)?)
    } else {
        None
    };
    let anatomy = Anatomy::of(&found.bytes);
    let report = Report::new(&found, survey, anatomy, source.facts(), compiled);
    screen.show(&report, text::text(&report))?;
    Ok(u8::from(report.refused.is_some()))
}

/// The plan of a pod that names the program and says nothing else but the settings.
pub(crate) fn alone(
    program: &Program,
    settings: &Settings,
    node_config: Option<&Path>,
    source: &Source,
) -> Outcome<GuestPlan> {
    let given = Given::new(&settings.class, node_config)?;
    let config = source.config();
    let (mut args, rest) = source.words();
    args.extend(rest);
    if let Some(entry) = &program.entry {
        args = vec![entry.clone()];
    }
    if args.is_empty() {
        return Err(Failure::new(
            Kind::Wrong,
            format!(
                "{} has files and does not say which of them runs: name one with --entry",
                program.name
            ),
        ));
    }
    let env = config.env.iter().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    let described = Described {
        name: "alone".to_owned(),
        args,
        env: env.collect(),
        cwd: config.working_dir.clone(),
        annotations: annotations(&settings.annotations),
        ..Described::default()
    };
    let plan = described
        .plan(&given)?
        .map_err(|error| Failure::of(Kind::Wrong, error))?;
    plan.guest
        .ok_or_else(|| Failure::new(Kind::System, "a container has no guest"))
}

fn compile(bytes: &[u8], settings: &EngineSettings) -> Result<Compiled, engine::CompileError> {
    progress("compiling");
    let begun = Instant::now();
    let mut artifact = Vec::new();
    engine::compile(bytes, settings, &mut artifact)?;
    Ok(Compiled {
        seconds: begun.elapsed().as_secs_f64(),
        bytes: artifact.len() as u64,
    })
}
