//! `sampan run`: a program as a pod would run it, on a developer's machine.

mod ground;
pub(crate) mod kept;
mod request;

use std::path::Path;

use engine::{Host, Program};
use plan::{Access, MountSource, Mounted, Plan, Preopen, RootAccess, preopens};

use crate::arguments::Run;
use crate::failure::{Failure, Kind, Outcome};
use crate::source::Source;
use ground::Ground;
use request::Request;

/// The order is the runner's: what can be wrong with the program is found before the guest's directories are made.
pub(crate) fn run(arguments: &Run) -> Outcome<u8> {
    let request = Request::new(arguments)?;
    let source = Source::open(&request.program, &arguments.program.registry)?;
    let ground = Ground::new()?;
    let described = request.describe(arguments, &source, &ground)?;
    let plan = described
        .plan(&request.given)?
        .map_err(|error| Failure::of(Kind::Wrong, error))?;
    let Some(mut guest) = plan.guest.clone() else {
        return Err(Failure::new(Kind::System, "a container has no guest"));
    };
    if let Some(dir) = &arguments.coredump {
        guest.coredump = Some(Ok(kept::core_dump(dir, &guest)?));
    }
    let program = source.program(&guest.entry, &guest.cwd, &guest.env)?;
    let artifact = kept::artifact(&program, &guest.engine)?;
    let linked = Program::load(&artifact, &guest)
        .map_err(|error| Failure::at(Kind::System, &program.name, error))?
        .link(&guest);
    let linked = match linked {
        Ok(linked) => linked,
        Err(error) => {
            let kind = match error.exit_code() {
                plan::ExitCode::NotFound => Kind::NotFound,
                plan::ExitCode::Internal => Kind::System,
                _ => Kind::Refused,
            };
            return Err(Failure::at(kind, &program.name, error));
        }
    };
    let root = source.files().map_or_else(|| ground.root(), Path::to_owned);
    let preopens = grants(&plan, &root, &ground)?;
    // No cgroup, so no limit that could change; signals before the guest listens end the process.
    let ending = linked.run(&guest, &preopens, Host::default());
    // The kernel keeps eight bits of an exit code.
    Ok(ending.code.to_le_bytes()[0])
}

/// The directories of a plan, each where it is on this machine.
fn grants(plan: &Plan, root: &Path, ground: &Ground) -> Outcome<Vec<Preopen>> {
    let places = plan
        .jail
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Bind { path, .. } => Some((mount, path)),
            MountSource::Tmpfs { .. } => None,
        });
    let mut mounted = Vec::new();
    let mut sources = vec![("/".to_owned(), root.to_owned())];
    for (mount, path) in places {
        let directory = path.is_dir();
        if directory {
            ground.mark(root, &mount.destination);
        } else {
            ground.put(root, &mount.destination, path)?;
        }
        mounted.push(Mounted {
            destination: mount.destination.clone(),
            directory,
            access: Access::from_readonly(mount.readonly),
        });
        sources.push((mount.destination.clone(), path.clone()));
    }
    let mut all = preopens(Access::from_readonly(plan.jail.root_readonly), &mounted);
    for preopen in &mut all {
        let found = sources.iter().rev().find(|(path, _)| *path == preopen.path);
        preopen.source = found.map(|(_, source)| source.clone());
    }
    let rootfs = plan.guest.as_ref().map(|guest| guest.rootfs);
    if rootfs == Some(RootAccess::None) {
        all.retain(|preopen| preopen.path != "/");
    }
    Ok(all)
}
