//! `run`: one guest, from the supervisor's word to the guest's exit code.

use std::process::ExitCode;
use std::sync::Arc;

use engine::{Counts, Host, LinkError, Linked, LoadError, Program};
use jail::{Door, Go, Refusal, RefusalKind};
use plan::{ExitCode as Ended, RootAccess, preopens};

/// The order matters: what can be wrong with the program is found before the jail, while the
/// supervisor can still be told and `/proc` is there to map the artifact by; threads start after
/// it; nothing of the guest runs before the supervisor says so.
pub(crate) fn run() -> ExitCode {
    let door = match Door::open() {
        Ok(door) => door,
        Err(error) => return failed(&error),
    };
    let linked = match link(&door) {
        Ok(linked) => linked,
        Err(refusal) => door.refuse(refusal),
    };
    // An error has been told to the supervisor by whoever met it.
    let mut inside = match door.enter() {
        Ok(inside) => inside,
        Err(error) => return failed(&error),
    };
    jail::end_on_signals(linked.serves());
    let mut guest = inside.guest().clone();
    let tracing = inside.tracing().cloned();
    let mut preopens = preopens(inside.root(), inside.mounted());
    if guest.rootfs == RootAccess::None {
        preopens.retain(|preopen| preopen.path != "/");
    }
    let Go {
        memory,
        orders,
        numbers,
    } = match inside.ready().and_then(|()| inside.wait_for_go()) {
        Ok(go) => go,
        Err(error) => return failed(&error),
    };
    guest.limits.memory = memory.or(guest.limits.memory);
    let orders = Arc::new(orders);
    let of_memory = Arc::clone(&orders);
    let host = Host {
        newer_limit: Box::new(move || of_memory.memory()),
        asked_to_end: jail::let_signals_in,
        counts: Counts::new(move |word, by| numbers.add(word, by)),
        tracer: tracing.map(|tracing| crate::spans::tracer(tracing, &orders)),
    };
    let ending = linked.run(&guest, &preopens, host);
    if let Some(account) = &ending.account {
        if let Some(path) = &guest.termination {
            crate::termination::write(path, account);
        }
        orders.ended(account);
    }
    // The kernel keeps eight bits of an exit code.
    jail::end(ending.code.to_le_bytes()[0])
}

fn link(door: &Door) -> Result<Linked, Refusal> {
    let guest = &door.launch().guest;
    let program = Program::load(door.artifact(), guest).map_err(|error| Refusal {
        kind: load_kind(&error),
        message: crate::one_line(&error),
    })?;
    program.link(guest).map_err(|error| Refusal {
        kind: link_kind(&error),
        message: crate::one_line(&error),
    })
}

fn load_kind(error: &LoadError) -> RefusalKind {
    match error {
        LoadError::Writable { .. } => RefusalKind::Permission,
        LoadError::NotAnArtifact | LoadError::Incompatible { .. } => RefusalKind::BadArtifact,
        LoadError::Read(_) | LoadError::Engine { .. } => RefusalKind::Internal,
    }
}

fn link_kind(error: &LinkError) -> RefusalKind {
    match error {
        LinkError::MissingImport { .. } => RefusalKind::MissingImport,
        LinkError::NoSuchExport { .. } => RefusalKind::NotFound,
        LinkError::Mismatch { .. } | LinkError::NoEntry { .. } => RefusalKind::InvalidProgram,
        LinkError::Parameters { .. }
        | LinkError::ServesOnly { .. }
        | LinkError::HttpAddress(_)
        | LinkError::CoreDump(_) => RefusalKind::Unsupported,
        LinkError::Engine(_) => RefusalKind::Internal,
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    crate::say(&format!("sampan: {}\n", crate::one_line(error)));
    ExitCode::from(Ended::Internal as u8)
}
