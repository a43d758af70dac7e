//! Guests that run once and end.

use std::io::Write;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use plan::ExitCode;
use wasmtime::component::{self, Val};
use wasmtime::{Engine, InstancePre, Store};
use wasmtime_wasi::{p2, p3};

use crate::ending::{self, Ending, SetUp, judge};
use crate::grants::{Grants, Threads};
use crate::limits::Budget;
use crate::state::{ComponentState, ModuleState};

/// What a reactor wants to be called before anything else (WASI, "Application ABI").
const INITIALIZE: &str = "_initialize";

/// Runs a guest on the calling thread and judges its end.
///
/// One thread is enough for one guest: the runtime's other threads would only wait, and cost
/// memory in every pod.
pub(crate) fn finish(
    budget: &Budget,
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
            Err(failure) => Ending::told(failure.code, failure.text()),
        },
    }
}

/// A store that is never taken down: the process ends with its guest, and the kernel takes
/// everything back in one go.
fn lasting<T>(store: Store<T>) -> ManuallyDrop<Store<T>> {
    ManuallyDrop::new(store)
}

/// Writes to the container's standard error. If nobody reads it any more there is nobody to
/// tell.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
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
    let mut store = lasting(ModuleState::store(engine, grants, budget)?);
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

fn own(
    engine: &Engine,
    grants: &Grants,
    budget: &Arc<Budget>,
) -> wasmtime::Result<Store<ComponentState>> {
    ComponentState::store(engine, grants, Threads::Own, None, budget)
}

pub(crate) async fn cli2(
    engine: &Engine,
    pre: &p2::bindings::CommandPre<ComponentState>,
    grants: &Grants,
    budget: &Arc<Budget>,
) -> wasmtime::Result<i32> {
    let mut store = lasting(own(engine, grants, budget)?);
    let command = set_up(pre.instantiate_async(&mut *store).await)?;
    let result = command.wasi_cli_run().call_run(&mut *store).await?;
    Ok(i32::from(result.is_err()))
}

pub(crate) async fn cli3(
    engine: &Engine,
    pre: &p3::bindings::CommandPre<ComponentState>,
    grants: &Grants,
    budget: &Arc<Budget>,
) -> wasmtime::Result<i32> {
    let mut store = lasting(own(engine, grants, budget)?);
    let command = set_up(pre.instantiate_async(&mut *store).await)?;
    let result = store
        .run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await)
        .await??;
    Ok(i32::from(result.is_err()))
}

pub(crate) async fn export(
    engine: &Engine,
    pre: &component::InstancePre<ComponentState>,
    name: &str,
    grants: &Grants,
    budget: &Arc<Budget>,
) -> wasmtime::Result<i32> {
    let mut store = lasting(own(engine, grants, budget)?);
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
}
