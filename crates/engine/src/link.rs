use std::fs::File;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use plan::{ExitCode, GuestPlan, Network, Preopen};
use wasmtime::component::{self, Component};
use wasmtime::{Engine, InstancePre, Module};
use wasmtime_wasi::{I32Exit, p2, p3};
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::{p2 as http2, p3 as http3};

use crate::compile::{Kind, one_line};
use crate::config::{Crowd, Style};
use crate::coredump::Dumps;
use crate::ending::{Ending, line};
use crate::entry::{self, ComponentCall};
use crate::grants::Grants;
use crate::host::Host;
use crate::http;
use crate::limits::Budget;
use crate::program::{Code, Program};
use crate::state::{ComponentState, ModuleState};
use crate::{command, config, imports, names, program, proposals};

/// A program whose imports are found and whose entry point is known: everything that can be
/// wrong with it before it runs has been asked.
pub struct Linked {
    engine: Engine,
    call: Call,
    /// Kept for its lock ([`Program`]).
    _artifact: File,
}

pub(crate) enum Call {
    Module {
        pre: InstancePre<ModuleState>,
        export: String,
    },
    Cli2(p2::bindings::CommandPre<ComponentState>),
    Cli3(p3::bindings::CommandPre<ComponentState>),
    Export {
        pre: component::InstancePre<ComponentState>,
        name: String,
    },
    Http(http::Served),
}

/// Why a program cannot run. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It imports what we do not have.
    #[error("the program imports {names}, which does not exist here: {hint}")]
    MissingImport {
        /// The imports, quoted.
        names: String,
        /// Where they would come from and what to do.
        hint: String,
    },
    /// It imports something of ours in another shape.
    #[error("the program's imports do not fit: {reason}")]
    Mismatch {
        /// What wasmtime said.
        reason: String,
    },
    /// There is nothing to call.
    #[error(
        "the program has no entry point: {rule}; this one exports {exports}; name a function without parameters as `#function`"
    )]
    NoEntry {
        /// What a program exports.
        rule: &'static str,
        /// What this one exports, quoted.
        exports: String,
    },
    /// The function that was asked for is not there.
    #[error("the program has no function `{name}`; it exports {exports}")]
    NoSuchExport {
        /// What was asked for.
        name: String,
        /// The functions that there are, quoted.
        exports: String,
    },
    /// The function that was asked for wants arguments.
    #[error(
        "the function `{name}` takes parameters ({params}); only functions without any can be called"
    )]
    Parameters {
        /// What was asked for.
        name: String,
        /// Its parameters.
        params: String,
    },
    /// It only serves HTTP, and was executed beside the container's own program.
    #[error(
        "the program serves HTTP and is no command, so it cannot be executed: name a function without parameters as `#function`; it exports {exports}"
    )]
    ServesOnly {
        /// What it exports, quoted.
        exports: String,
    },
    /// It serves HTTP, and nobody knows where.
    #[error("{0}")]
    HttpAddress(String),
    /// It is to leave a core dump where it cannot.
    #[error("{0}")]
    CoreDump(String),
    /// The engine could not be set up.
    #[error("cannot prepare the engine: {0}")]
    Engine(String),
}

impl LinkError {
    /// The exit code of a container that ends for this reason.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoSuchExport { .. } => ExitCode::NotFound,
            Self::MissingImport { .. }
            | Self::Mismatch { .. }
            | Self::NoEntry { .. }
            | Self::Parameters { .. }
            | Self::ServesOnly { .. }
            | Self::HttpAddress(_)
            | Self::CoreDump(_) => ExitCode::NotRunnable,
            Self::Engine(_) => ExitCode::Internal,
        }
    }
}

fn engine_failed(error: &wasmtime::Error) -> LinkError {
    LinkError::Engine(one_line(error))
}

impl Program {
    /// Finds the program's imports and what is to be called. WASI 0.2, 0.3 and wasi:http are all
    /// there for every component, whatever it is: today's components mix them.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn link(self, guest: &GuestPlan) -> Result<Linked, LinkError> {
        let Self {
            engine,
            code,
            style,
            artifact,
        } = self;
        let call = find_call(&engine, &code, Some((style, &artifact)), guest)?;
        Ok(Linked {
            engine,
            call,
            _artifact: artifact,
        })
    }
}

/// Finds what is to be called, or why nothing can be. Without `mapped` (how the artifact was compiled, and its file) no
/// pool is laid out.
pub(crate) fn find_call(
    engine: &Engine,
    code: &Code,
    mapped: Option<(Style, &File)>,
    guest: &GuestPlan,
) -> Result<Call, LinkError> {
    let call = match code {
        Code::Module(module) => link_module(engine, module, guest.entry.export.as_deref())?,
        Code::Component(component) => link_component(engine, component, mapped, guest)?,
    };
    // Now, and not when it is too late to say so.
    if let Some(Err(reason)) = &guest.coredump {
        return Err(LinkError::CoreDump(reason.clone()));
    }
    if let Some(on_term) = guest.on_term.as_deref().filter(|_| !guest.command) {
        match code {
            Code::Module(module) => entry::of_module(module, Some(on_term)).map(drop)?,
            Code::Component(component) => {
                entry::of_component(engine, component, Some(on_term)).map(drop)?;
            }
        }
    }
    Ok(call)
}

/// All that a module can import.
pub(crate) fn module_linker(engine: &Engine) -> wasmtime::Result<wasmtime::Linker<ModuleState>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut ModuleState| &mut state.wasi)?;
    // wasmtime's own refuses codes of 126 and more by a trap; a container may end with
    // any of them.
    linker.allow_shadowing(true);
    linker.func_wrap(
        imports::PREVIEW1,
        "proc_exit",
        |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code).into()) },
    )?;
    Ok(linker)
}

fn link_module(engine: &Engine, module: &Module, wanted: Option<&str>) -> Result<Call, LinkError> {
    let pre = module_linker(engine)
        .map_err(|error| engine_failed(&error))?
        .instantiate_pre(module)
        .map_err(|error| imports::of_module(module, &error))?;
    // After the imports: what nobody has says more about a program than what it lacks.
    let export = entry::of_module(module, wanted)?;
    Ok(Call::Module { pre, export })
}

fn link_component(
    engine: &Engine,
    component: &Component,
    mapped: Option<(Style, &File)>,
    guest: &GuestPlan,
) -> Result<Call, LinkError> {
    let call = match entry::of_component(engine, component, guest.entry.export.as_deref()) {
        Ok(call) => call,
        Err(error) => {
            // What it imports and nobody has says more about it than what it lacks.
            instantiable(engine, component, guest)?;
            return Err(error);
        }
    };
    let mismatch = |error: wasmtime::Error| LinkError::Mismatch {
        reason: one_line(&error),
    };
    Ok(match call {
        ComponentCall::Cli2 => {
            let pre = p2::bindings::CommandPre::new(instantiable(engine, component, guest)?);
            Call::Cli2(pre.map_err(mismatch)?)
        }
        ComponentCall::Cli3 => {
            let pre = p3::bindings::CommandPre::new(instantiable(engine, component, guest)?);
            Call::Cli3(pre.map_err(mismatch)?)
        }
        ComponentCall::Export(name) => Call::Export {
            pre: instantiable(engine, component, guest)?,
            name,
        },
        ComponentCall::Http2 | ComponentCall::Http3 if guest.command => {
            return Err(entry::serves_only(engine, component));
        }
        ComponentCall::Http2 | ComponentCall::Http3 => {
            let address = guest.http.address.clone().map_err(LinkError::HttpAddress)?;
            let crowd = Crowd::of(&guest.serving, call == ComponentCall::Http3);
            let pooled = mapped
                .filter(|_| guest.engine.pooling)
                .map(|(style, artifact)| pooled(component, style, artifact, guest, crowd));
            let (pre, unpooled) = match pooled {
                Some(Ok((engine, component))) => (instantiable(&engine, &component, guest)?, None),
                Some(Err(reason)) => (instantiable(engine, component, guest)?, Some(reason)),
                None => (instantiable(engine, component, guest)?, None),
            };
            let pre = if call == ComponentCall::Http2 {
                http2::bindings::ProxyPre::new(pre).map(ProxyPre::P2)
            } else {
                http3::bindings::ServicePre::new(pre).map(ProxyPre::P3)
            };
            Call::Http(http::Served {
                pre: pre.map_err(mismatch)?,
                address,
                threads: http::threads(),
                crowd,
                unpooled,
                serving: guest.serving.clone(),
            })
        }
    })
}

/// The component once more, in an engine whose pool fits it. A pool has to be laid out before
/// anything is loaded, and what it has to hold is known only afterwards; mapping again takes
/// less than a request.
///
/// # Errors
/// Why there is none; the program runs without as well, only slower.
fn pooled(
    component: &Component,
    style: Style,
    artifact: &File,
    guest: &GuestPlan,
    crowd: Crowd,
) -> Result<(Engine, Component), String> {
    let needs = component
        .resources_required()
        .ok_or("what it needs is not known before it runs")?;
    let made = config::for_serving(guest, style, &needs, crowd)
        .and_then(|engine| Ok((program::map(&engine, Kind::Component, artifact)?, engine)));
    match made.map_err(|error| one_line(&error))? {
        (Code::Component(component), engine) => Ok((engine, component)),
        (Code::Module(_), _) => Err("it is no component".to_owned()),
    }
}

fn instantiable(
    engine: &Engine,
    component: &Component,
    guest: &GuestPlan,
) -> Result<component::InstancePre<ComponentState>, LinkError> {
    component_linker(engine, component, guest)
        .map_err(|error| engine_failed(&error))?
        .instantiate_pre(component)
        .map_err(|error| imports::of_component(&error))
}

/// All interfaces of the WASI lines that the component imports from. Which lines these are is
/// looked up, because defining the functions of both takes as long as all the rest of linking;
/// an import of neither is reported all the same.
pub(crate) fn component_linker(
    engine: &Engine,
    component: &Component,
    guest: &GuestPlan,
) -> wasmtime::Result<component::Linker<ComponentState>> {
    let ty = component.component_type();
    let imports = |part: &str| ty.imports(engine).any(|(name, _)| name.contains(part));
    let (wasi2, wasi3, http) = (imports("@0.2."), imports("@0.3."), imports("wasi:http/"));
    let watched = guest.network != Network::default();
    let mut linker = component::Linker::new(engine);
    if wasi2 {
        p2::add_to_linker_async(&mut linker)?;
        if watched {
            names::watch2(&mut linker)?;
        }
        if http {
            http2::add_only_http_to_linker_async(&mut linker)?;
        }
    }
    if wasi3 {
        p3::add_to_linker(&mut linker)?;
        if watched {
            names::watch3(&mut linker)?;
        }
        if http {
            http3::add_to_linker(&mut linker)?;
        }
    }
    proposals::add_to_linker(engine, component, &mut linker)?;
    Ok(linker)
}

impl Linked {
    /// Whether the guest serves HTTP: it then takes SIGTERM and SIGINT itself and drains, so that
    /// no handler of the process for them may end it when [`Linked::run`] is called. A command
    /// leaves every signal to the process.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self.call, Call::Http(_))
    }

    /// Runs the guest to its end; the reason of a bad one is on standard error then.
    ///
    /// Uses the process's descriptors 0, 1 and 2 and starts threads: everything that asks for a
    /// single thread has to be done. Leaves behind what the end of the process cleans up: exit
    /// with the code.
    #[must_use]
    pub fn run(self, guest: &GuestPlan, preopens: &[Preopen], host: Host) -> Ending {
        let Host {
            newer_limit,
            asked_to_end,
            counts,
            tracer,
        } = host;
        let dumps = match Dumps::open(guest, preopens) {
            Ok(dumps) => dumps,
            Err(error) => {
                return Ending::told(ExitCode::NotRunnable, line(&error.to_string()));
            }
        };
        let grants = Grants::new(guest, preopens, Arc::clone(&counts), tracer, dumps);
        let budget = Budget::new(guest.limits.memory, newer_limit);
        // Never taken down: the process ends with its guest, and the kernel takes all of it back
        // in one go.
        let this = ManuallyDrop::new(self);
        let engine = &this.engine;
        match &this.call {
            Call::Module { pre, export } => command::finish(&budget, &counts, async || {
                command::module(engine, pre, export, &grants, &budget).await
            }),
            Call::Cli2(pre) => command::finish(&budget, &counts, async || {
                command::cli2(engine, pre, &grants, &budget).await
            }),
            Call::Cli3(pre) => command::finish(&budget, &counts, async || {
                command::cli3(engine, pre, &grants, &budget).await
            }),
            Call::Export { pre, name } => command::finish(&budget, &counts, async || {
                command::export(engine, pre, name, &grants, &budget).await
            }),
            Call::Http(server) => http::serve(server, grants, budget, asked_to_end),
        }
    }
}
