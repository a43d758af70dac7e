//! What a program asks for and offers, and whether it would be linked, without compiling its code.
//!
//! The answers come from the linker and the search for an entry point that a container's start goes through: what they
//! are asked about is the program itself with empty functions ([`hollow`]).

use std::collections::BTreeMap;

use plan::GuestPlan;
use wasmparser::{Validator, WasmFeatures};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, LinkerInstance, ResourceType};
use wasmtime::{Engine, ExternType, Module};

use crate::compile::{self, CompileError, Kind, one_line};
use crate::config;
use crate::counts::Counts;
use crate::grants::Grants;
use crate::hollow::hollow;
use crate::imports;
use crate::limits::Budget;
use crate::link::{self, Call, LinkError};
use crate::program::Code;
use crate::state::{ComponentState, ModuleState};

/// A program, looked at.
#[derive(Debug)]
pub struct Survey {
    /// Module or component.
    pub kind: Kind,
    /// What it imports, in its own order.
    pub imports: Vec<Import>,
    /// What it exports, in its own order.
    pub exports: Vec<Export>,
    /// WebAssembly proposals without which it is not valid.
    pub proposals: Vec<&'static str>,
    /// What would be called, or the error with which a container's creation would fail.
    pub runs: Result<Runs, LinkError>,
}

/// One import.
#[derive(Debug)]
pub struct Import {
    /// The interface, or the module.
    pub name: String,
    /// The function, of a module's import.
    pub function: Option<String>,
    /// Whether it is there.
    pub answer: Answer,
}

/// Whether an import is there.
#[derive(Debug)]
pub enum Answer {
    /// It is.
    Provided,
    /// It is not, or in another shape.
    Refused(LinkError),
    /// Not known: it depends on one that is refused.
    Open,
}

/// One export.
#[derive(Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// What can be done with it.
    pub role: Role,
}

/// What can be done with an export.
#[derive(Debug, PartialEq, Eq)]
pub enum Role {
    /// A function without parameters: `#name` calls it.
    Callable,
    /// A function that wants arguments, by their types or names: nobody can call it.
    Takes(Vec<String>),
    /// An interface.
    Interface,
    /// A memory, a table, a type or the like.
    Other,
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs {
    /// A function, by its name.
    Function(String),
    /// `wasi:cli/run` of this line of WASI.
    Command(&'static str),
    /// `wasi:http` of this line of WASI, for every request.
    Server(&'static str),
}

impl From<&Call> for Runs {
    fn from(call: &Call) -> Self {
        match call {
            Call::Module { export, .. } => Self::Function(export.clone()),
            Call::Export { name, .. } => Self::Function(name.clone()),
            Call::Cli2(_) => Self::Command("0.2"),
            Call::Cli3(_) => Self::Command("0.3"),
            Call::Http(served) => Self::Server(served.line()),
        }
    }
}

/// Looks at a program, binary or text, that would be run by this plan.
///
/// # Errors
/// [`CompileError`] with the reason for which it would not be compiled. A program that the compiler alone refuses
/// (a function beyond its limits) is not found out.
pub fn survey(source: &[u8], guest: &GuestPlan) -> Result<Survey, CompileError> {
    let source = compile::binary(source)?;
    let failed = |error: wasmtime::Error| CompileError::Engine {
        reason: one_line(&error),
    };
    let engine = config::for_compiling(&guest.engine, compile::style(&source)).map_err(failed)?;
    let kind = compile::validate(&engine, &source)?;
    let hollow = hollow(&source).map_err(|error| CompileError::Invalid {
        reason: error.to_string(),
    })?;
    let refused = |error: wasmtime::Error| CompileError::Refused {
        reason: one_line(&error),
    };
    let code = match kind {
        Kind::Module => Code::Module(Module::new(&engine, &hollow).map_err(refused)?),
        Kind::Component => Code::Component(Component::new(&engine, &hollow).map_err(refused)?),
    };
    let (imports, exports) = match &code {
        Code::Module(module) => (
            module_imports(&engine, module, guest),
            module_exports(module),
        ),
        Code::Component(component) => (
            component_imports(&engine, component, guest),
            component_exports(&engine, component),
        ),
    };
    Ok(Survey {
        kind,
        imports: imports.map_err(failed)?,
        exports,
        proposals: proposals(&engine, &source),
        runs: link::find_call(&engine, &code, None, guest).map(|call| Runs::from(&call)),
    })
}

fn module_imports(
    engine: &Engine,
    module: &Module,
    guest: &GuestPlan,
) -> wasmtime::Result<Vec<Import>> {
    let linker = link::module_linker(engine)?;
    let grants = Grants::new(guest, &[], Counts::none(), None, None);
    let mut store = ModuleState::store(engine, &grants, &Budget::new(None, Box::new(|| None)))?;
    let answers = module.imports().map(|import| {
        let answer = match linker.get_by_import(&mut store, &import) {
            Some(found) => match (found.ty(&store), import.ty()) {
                (ExternType::Func(found), ExternType::Func(wanted)) if found.matches(&wanted) => {
                    Answer::Provided
                }
                (found, wanted) => Answer::Refused(LinkError::Mismatch {
                    reason: format!(
                        "it has the type {}, wanted is {}",
                        shown(&found),
                        shown(&wanted)
                    ),
                }),
            },
            None => Answer::Refused(imports::missing_in_module(&[(
                import.module(),
                import.name(),
            )])),
        };
        Import {
            name: import.module().to_owned(),
            function: Some(import.name().to_owned()),
            answer,
        }
    });
    Ok(answers.collect())
}

fn shown(ty: &ExternType) -> String {
    match ty {
        ExternType::Func(ty) => ty.to_string(),
        ExternType::Global(_) => "global".to_owned(),
        ExternType::Table(_) => "table".to_owned(),
        ExternType::Memory(_) => "memory".to_owned(),
        ExternType::Tag(_) => "tag".to_owned(),
    }
}

fn module_exports(module: &Module) -> Vec<Export> {
    let exports = module.exports().map(|export| Export {
        name: export.name().to_owned(),
        role: match export.ty() {
            ExternType::Func(ty) => function(ty.params().map(|ty| ty.to_string())),
            _ => Role::Other,
        },
    });
    exports.collect()
}

fn function(params: impl Iterator<Item = String>) -> Role {
    let params: Vec<_> = params.collect();
    if params.is_empty() {
        Role::Callable
    } else {
        Role::Takes(params)
    }
}

/// The linker stops at the first import that it does not have. So it is given a stand-in for that one, and asked again.
fn component_imports(
    engine: &Engine,
    component: &Component,
    guest: &GuestPlan,
) -> wasmtime::Result<Vec<Import>> {
    let mut linker = link::component_linker(engine, component, guest)?;
    let ty = component.component_type();
    let mut refused = BTreeMap::new();
    let mut stuck = None;
    while let Err(error) = linker.instantiate_pre(component) {
        let name = imports::stopped_at(&error).unwrap_or_default();
        let wanted = ty.imports(engine).find(|(known, _)| *known == name);
        let (false, Some((_, item))) = (refused.contains_key(&name), wanted) else {
            stuck = Some(name);
            break;
        };
        refused.insert(name.clone(), imports::of_component(&error));
        let place = imports::defined_as(&name);
        // What is there stays; then what has another shape is replaced.
        for shadowing in [false, true] {
            linker.allow_shadowing(shadowing);
            stand_in(&mut linker.root(), engine, &place, &item.ty, shadowing);
        }
    }
    let mut open = false;
    let answers = ty.imports(engine).map(|(name, _)| {
        let answer = match refused.remove(name) {
            Some(error) => Answer::Refused(error),
            None if open => Answer::Open,
            None => Answer::Provided,
        };
        open |= stuck.as_deref() == Some(name);
        Import {
            name: name.to_owned(),
            function: None,
            answer,
        }
    });
    Ok(answers.collect())
}

/// Stands for a resource that nobody has.
enum Absent {}

/// Defines what an import wants, as far as it can be defined; linking says again what is not.
fn stand_in(
    place: &mut LinkerInstance<'_, ComponentState>,
    engine: &Engine,
    name: &str,
    item: &ComponentItem,
    shadowing: bool,
) {
    match item {
        ComponentItem::ComponentFunc(_) if shadowing => {
            let _ = place.func_new(name, |_, _, _, _| wasmtime::bail!("nobody has it"));
        }
        // Never in the place of one that is there: others refer to it.
        ComponentItem::Resource(_) if !shadowing => {
            let _ = place.resource(name, ResourceType::host::<Absent>(), |_, _| Ok(()));
        }
        ComponentItem::ComponentInstance(ty) => {
            if let Ok(mut inner) = place.instance(name) {
                for (name, item) in ty.exports(engine) {
                    stand_in(&mut inner, engine, name, &item.ty, shadowing);
                }
            }
        }
        _ => {}
    }
}

fn component_exports(engine: &Engine, component: &Component) -> Vec<Export> {
    let ty = component.component_type();
    let exports = ty.exports(engine).map(|(name, item)| Export {
        name: name.to_owned(),
        role: match item.ty {
            ComponentItem::ComponentFunc(ty) => {
                function(ty.params().map(|(name, _)| name.to_owned()))
            }
            ComponentItem::ComponentInstance(_) => Role::Interface,
            _ => Role::Other,
        },
    });
    exports.collect()
}

/// What came after WebAssembly 1.0, by the names of the proposals.
const PROPOSALS: [(&str, WasmFeatures); 16] = [
    ("bulk-memory", WasmFeatures::BULK_MEMORY),
    ("component-model", WasmFeatures::COMPONENT_MODEL),
    ("component-model-async", WasmFeatures::CM_ASYNC),
    ("exceptions", WasmFeatures::EXCEPTIONS),
    ("extended-const", WasmFeatures::EXTENDED_CONST),
    ("function-references", WasmFeatures::FUNCTION_REFERENCES),
    ("gc", WasmFeatures::GC),
    ("memory64", WasmFeatures::MEMORY64),
    ("multi-memory", WasmFeatures::MULTI_MEMORY),
    ("multi-value", WasmFeatures::MULTI_VALUE),
    ("reference-types", WasmFeatures::REFERENCE_TYPES),
    ("relaxed-simd", WasmFeatures::RELAXED_SIMD),
    (
        "saturating-float-to-int",
        WasmFeatures::SATURATING_FLOAT_TO_INT,
    ),
    ("sign-extension", WasmFeatures::SIGN_EXTENSION),
    ("simd", WasmFeatures::SIMD),
    ("tail-call", WasmFeatures::TAIL_CALL),
];

/// Those without which the program is not valid.
fn proposals(engine: &Engine, source: &[u8]) -> Vec<&'static str> {
    let all = engine.get_wasm_features();
    let needed = |feature: WasmFeatures| {
        Validator::new_with_features(all.difference(feature))
            .validate_all(source)
            .is_err()
    };
    PROPOSALS
        .into_iter()
        .filter(|(_, feature)| needed(*feature))
        .map(|(name, _)| name)
        .collect()
}
