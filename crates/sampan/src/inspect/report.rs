//! What is told about a program.

use std::collections::BTreeSet;

use engine::{Answer, Kind, LinkError, Role, Runs, Survey};
use serde::Serialize;

use crate::inspect::anatomy::Anatomy;
use crate::inspect::capability::Capability;
use crate::source::{Facts, Program};

/// All of it, as JSON has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report<'a> {
    pub(crate) name: String,
    pub(crate) digest: String,
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) kind: &'static str,
    /// Versions of WASI that its imports and exports name.
    pub(crate) wasi: BTreeSet<String>,
    /// What would be called.
    pub(crate) runs: Option<String>,
    /// Why its container's creation, or its start, would fail.
    pub(crate) refused: Option<String>,
    pub(crate) imports: Vec<Import>,
    pub(crate) exports: Vec<Export>,
    /// WebAssembly proposals that it needs.
    pub(crate) proposals: Vec<&'static str>,
    #[serde(flatten)]
    pub(crate) anatomy: Anatomy,
    pub(crate) image: Option<&'a Facts>,
    /// What is worth knowing before it is deployed.
    pub(crate) advice: Vec<String>,
    pub(crate) compiled: Option<Compiled>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Import {
    pub(crate) capability: Capability,
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<String>,
    pub(crate) answer: &'static str,
    /// Why it is not provided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) because: Option<String>,
    /// What of a pod decides how much of it the guest has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decided_by: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) how: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Compiled {
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
}

/// Why a program with a shared memory does not start.
const SHARED: &str =
    "its memory is shared between threads, which guests do not have: build it without threads";
/// Answers about imports.
pub(crate) const PROVIDED: &str = "provided";
pub(crate) const DECIDED: &str = "provided-by-option";
pub(crate) const REFUSED: &str = "not-provided";
pub(crate) const OPEN: &str = "depends-on-others";

impl<'a> Report<'a> {
    pub(crate) fn new(
        program: &Program,
        survey: Survey,
        anatomy: Anatomy,
        image: Option<&'a Facts>,
        compiled: Option<Compiled>,
    ) -> Self {
        let names = survey.imports.iter().map(|import| import.name.as_str());
        let names = names.chain(survey.exports.iter().map(|export| export.name.as_str()));
        let wasi = names.filter_map(version).collect();
        let (runs, refused) = match &survey.runs {
            // Creating it works, and starting it fails.
            Ok(_) if anatomy.memories.iter().any(|memory| memory.shared) => {
                (None, Some(SHARED.to_owned()))
            }
            Ok(runs) => (Some(told(runs)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let mut advice = advice(&anatomy);
        advice.extend(image.into_iter().flat_map(of_image));
        Self {
            name: program.name.clone(),
            digest: program.digest.to_string(),
            size: program.bytes.len() as u64,
            kind: match survey.kind {
                Kind::Module => "module",
                Kind::Component => "component",
            },
            wasi,
            exports: survey
                .exports
                .iter()
                .filter(|export| export.role != Role::Other)
                .map(|export| Export {
                    name: export.name.clone(),
                    how: how(&export.name, &export.role, survey.runs.as_ref().ok()),
                })
                .collect(),
            imports: survey.imports.into_iter().map(import).collect(),
            runs,
            refused,
            proposals: survey.proposals,
            anatomy,
            image,
            advice,
            compiled,
        }
    }
}

fn import(import: engine::Import) -> Import {
    let capability = Capability::of(&import.name, import.function.as_deref());
    let (answer, because) = match import.answer {
        Answer::Provided if capability.decided_by().is_some() => (DECIDED, None),
        Answer::Provided => (PROVIDED, None),
        Answer::Refused(error) => (REFUSED, Some(because(&error))),
        Answer::Open => (OPEN, None),
    };
    Import {
        capability,
        decided_by: (answer == DECIDED)
            .then(|| capability.decided_by())
            .flatten(),
        name: import.name,
        function: import.function,
        answer,
        because,
    }
}

/// The reason without what stands beside it already.
fn because(error: &LinkError) -> String {
    match error {
        LinkError::MissingImport { names, hint } => match names.split_once(" (") {
            // A part of an interface that is there.
            Some((_, part)) => format!("{}; {hint}", part.trim_end_matches(')')),
            None => hint.clone(),
        },
        LinkError::Mismatch { reason } => reason.clone(),
        other => other.to_string(),
    }
}

/// The version of WASI that a name belongs to.
fn version(name: &str) -> Option<String> {
    match name {
        "wasi_snapshot_preview1" => Some("preview 1".to_owned()),
        "wasi_unstable" => Some("preview 0".to_owned()),
        _ => {
            let (_, version) = name.strip_prefix("wasi:")?.split_once('@')?;
            Some(version.to_owned())
        }
    }
}

fn told(runs: &Runs) -> String {
    match runs {
        Runs::Function(name) => format!("the function `{name}`, once"),
        Runs::Command(line) => format!("`wasi:cli/run` (WASI {line}), once"),
        Runs::Server(line) => format!("`wasi:http` (WASI {line}), for every request: a server"),
    }
}

fn how(name: &str, role: &Role, runs: Option<&Runs>) -> String {
    let chosen = match runs {
        Some(Runs::Function(function)) => function == name,
        Some(Runs::Command(line)) => name.starts_with(&format!("wasi:cli/run@{line}.")),
        Some(Runs::Server(line)) => ["wasi:http/handler@", "wasi:http/incoming-handler@"]
            .iter()
            .any(|start| name.starts_with(&format!("{start}{line}."))),
        None => false,
    };
    match role {
        _ if chosen => "runs".to_owned(),
        Role::Callable => format!("can be called: `#{name}`"),
        Role::Takes(params) => format!("cannot be called: it takes {}", params.join(", ")),
        Role::Interface | Role::Other => "is for other programs".to_owned(),
    }
}

fn advice(anatomy: &Anatomy) -> Vec<String> {
    let mut advice = Vec::new();
    if anatomy.debug > 0 {
        advice.push(format!(
            "{} bytes are debug sections, which nothing reads here: `wasm-tools strip` takes them away and leaves the \
             names of functions",
            anatomy.debug
        ));
    }
    let initial = anatomy.initial_memory();
    if initial > 0 {
        // What a guest is given is the headroom less than its container's limit, but never less than half of it.
        let least = (initial + plan::GuestLimits::HEADROOM).min(initial * 2);
        advice.push(format!(
            "its memories have {initial} bytes before it does anything: with a container's limit below {least} bytes it \
             cannot be set up"
        ));
    }
    advice
}

/// What the image would meet with, by containerd's version (docs/reference.md, "Image formats").
fn of_image(facts: &Facts) -> Vec<String> {
    const CNCF: &str = "application/vnd.wasm.config.v0+json";
    let mut advice = Vec::new();
    let is_wasm = |platform: &str| platform.contains("/wasm");
    if let Some(platforms) = &facts.index
        && platforms
            .iter()
            .all(|platform| is_wasm(platform) || platform == "unknown/unknown")
    {
        advice.push(
            "an index with wasm entries alone: every containerd refuses to pull it (`no match for platform in manifest`); \
             push a plain manifest (`docker buildx build --provenance=false --sbom=false`)"
                .to_owned(),
        );
    }
    let tar = facts
        .layers
        .iter()
        .any(|layer| layer.media_type.contains("tar"));
    if tar && facts.platform.as_deref().is_some_and(is_wasm) {
        advice.push(
            "tar layers for a wasm platform: containerd 2.3 and newer does not unpack them at a default pull; use \
             linux/amd64 and linux/arm64 as platforms"
                .to_owned(),
        );
    }
    if facts.config.media_type == CNCF {
        advice.push(
            "`ctr run` does not know this format (`unknown image config media type`); pods do"
                .to_owned(),
        );
    }
    if !facts.has_command {
        advice.push(
            "the image has no command of its own: a pod needs one, `command: [\"/\"]` is enough (else containerd says \
             `no command specified`)"
                .to_owned(),
        );
    }
    if facts.bound_by == crate::source::BY_NAME {
        advice.push(
            "its config does not say which layer it is about: containerd 1.7 refuses it beside another image with the same \
             config; the CNCF format says it"
                .to_owned(),
        );
    }
    advice
}
