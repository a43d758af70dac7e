//! Guests that run once and end.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use plan::ExitCode;
use plan::numbers::Count;
use wasmtime::component::{self, Val};
use wasmtime::{Engine, InstancePre, Store};
use wasmtime_wasi::{p2, p3};

use crate::coredump::Left;
use crate::counts::Counts;
use crate::ending::{self, Ending, SetUp, judge};
use crate::grants::{Grants, Threads};
use crate::limits::Budget;
use crate::state::{ComponentState, ModuleState};
use crate::stdio::{self, Lines, Output};

/// What a reactor wants to be called before anything else (WASI, "Application ABI").
const INITIALIZE: &str = "_initialize";

/// Runs a guest on the calling thread and judges its end.
///
/// One thread is enough for one guest: the runtime's other threads would only wait, and cost
/// memory in every pod.
pub(crate) fn finish(
    budget: &Budget,
    counts: &Counts,
    guest: impl AsyncFnOnce() -> wasmtime::Result<i32>,
) -> Ending {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let account = ending::line(&format!("cannot start: {error}"));
            return Ending::told(ExitCode::Internal, account);
        }
    };
    let result = runtime.block_on(guest());
    // A thread that waits for a name server must not hold back the exit.
    runtime.shutdown_background();
    match result {
        Ok(code) => Ending::own(code),
        Err(error) => match judge(&error, budget) {
            Ok(code) => Ending::own(code),
            Err(failure) => {
                if let Some(trap) = failure.end() {
                    counts.trapped(trap);
                }
                Ending::told(failure.code, failure.text())
            }
        },
    }
}

/// Writes lines to the container's standard error, as all its lines are written. If nobody reads it any more there is
/// nobody to tell.
pub(crate) fn say(text: &str) {
    let _ = Output::Stderr.write_all(&stdio::own(text));
}

/// What is to be done when a guest has ended, while all of it is still there. Its store is never taken down: the process ends
/// with it, and the kernel takes everything back in one go.
fn ended<T: 'static>(
    mut store: ManuallyDrop<Store<T>>,
    lines: impl FnOnce(&T) -> Option<Arc<Lines>>,
    grants: &Grants,
    budget: &Budget,
    result: wasmtime::Result<i32>,
) -> wasmtime::Result<i32> {
    // The store is never dropped, and with it what was held back of its lines.
    if let Some(lines) = lines(store.data()) {
        lines.finish();
    }
    if let Some(fuel) = grants.fuel {
        let left = store.get_fuel().unwrap_or(fuel);
        grants.counts().add(Count::Fuel, fuel.saturating_sub(left));
    }
    let Some(dumps) = &grants.dumps else {
        return result;
    };
    result.map_err(|error| {
        let Err(failure) = judge(&error, budget) else {
            return error;
        };
        match dumps.leave(&mut store, &error, &failure.reason) {
            Some(left) => error.context(Left(left)),
            None => error,
        }
    })
}

/// Marks what fails before the guest's own code is called.
fn set_up<T>(instantiated: wasmtime::Result<T>) -> wasmtime::Result<T> {
    instantiated.map_err(|error| error.context(SetUp))
}

pub(crate) async fn module(
    engine: &Engine,
    pre: &InstancePre<ModuleState>,
    export: &str,
    grants: &Grants,
    budget: &Arc<Budget>,
) -> wasmtime::Result<i32> {
    let mut store = ManuallyDrop::new(ModuleState::store(engine, grants, budget)?);
    let result = in_module(&mut store, pre, export).await;
    ended(store, ModuleState::lines, grants, budget, result)
}

async fn in_module(
    store: &mut Store<ModuleState>,
    pre: &InstancePre<ModuleState>,
    export: &str,
) -> wasmtime::Result<i32> {
    let instance = set_up(pre.instantiate_async(&mut *store).await)?;
    if export != "_start"
        && export != INITIALIZE
        && let Some(initialize) = instance.get_func(&mut *store, INITIALIZE)
    {
        initialize
            .typed::<(), ()>(&*store)?
            .call_async(&mut *store, ())
            .await?;
    }
    let Some(function) = instance.get_func(&mut *store, export) else {
        wasmtime::bail!("no function `{export}`");
    };
    // What it returns has no meaning for a container: the code is 0 unless it traps or exits.
    let count = function.ty(&*store).results().len();
    let mut results = vec![wasmtime::Val::I32(0); count];
    function.call_async(&mut *store, &[], &mut results).await?;
    Ok(0)
}

/// Gives a component a store, has something done in it, and sees to what is to be done then.
async fn in_component(
    engine: &Engine,
    grants: &Grants,
    budget: &Arc<Budget>,
    guest: impl AsyncFnOnce(&mut Store<ComponentState>) -> wasmtime::Result<i32>,
) -> wasmtime::Result<i32> {
    let lines = grants.lines(false);
    let store = ComponentState::store(engine, grants, Threads::Own, lines, budget)?;
    let mut store = ManuallyDrop::new(store);
    let result = guest(&mut store).await;
    ended(store, ComponentState::lines, grants, budget, result)
}

pub(crate) async fn cli2(
    engine: &Engine,
    pre: &p2::bindings::CommandPre<ComponentState>,
    grants: &Grants,
    budget: &Arc<Budget>,
) -> wasmtime::Result<i32> {
    in_component(engine, grants, budget, async |store| {
        let command = set_up(pre.instantiate_async(&mut *store).await)?;
        let result = command.wasi_cli_run().call_run(&mut *store).await?;
        Ok(i32::from(result.is_err()))
    })
    .await
}

pub(crate) async fn cli3(
    engine: &Engine,
    pre: &p3::bindings::CommandPre<ComponentState>,
    grants: &Grants,
    budget: &Arc<Budget>,
) -> wasmtime::Result<i32> {
    in_component(engine, grants, budget, async |store| {
        let command = set_up(pre.instantiate_async(&mut *store).await)?;
        let result = store
            .run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await)
            .await??;
        Ok(i32::from(result.is_err()))
    })
    .await
}

pub(crate) async fn export(
    engine: &Engine,
    pre: &component::InstancePre<ComponentState>,
    name: &str,
    grants: &Grants,
    budget: &Arc<Budget>,
) -> wasmtime::Result<i32> {
    in_component(engine, grants, budget, async |store| {
        let instance = set_up(pre.instantiate_async(&mut *store).await)?;
        let Some(function) = instance.get_func(&mut *store, name) else {
            wasmtime::bail!("no function `{name}`");
        };
        let count = function.ty(&*store).results().len();
        let mut results = vec![Val::Bool(false); count];
        function.call_async(&mut *store, &[], &mut results).await?;
        // A function that says it failed has failed; whatever else it returns has no meaning here.
        Ok(i32::from(matches!(
            results.first(),
            Some(Val::Result(Err(_)))
        )))
    })
    .await
}
