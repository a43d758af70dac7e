//! `sampan doctor`: whether Sampan works on this node, and if not, what to do. Only looks; what it runs, it removes.

mod canary;
mod cgroups;
mod containerd;
mod finding;
mod handlers;
mod keeping;
mod kernel;

use std::path::Path;

use plan::NodeConfig;
use serde::Serialize;

use crate::arguments::Doctor;
use crate::failure::Outcome;
use crate::node;
use crate::output::{Screen, Text, bad, careful, good, progress, strong};
use containerd::Containerd;
use finding::{Finding, State};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Examined {
    /// Whether nothing is wrong.
    works: bool,
    findings: Vec<Finding>,
}

pub(crate) fn doctor(arguments: &Doctor, screen: &mut Screen<'_>) -> Outcome<u8> {
    let mut findings = Vec::new();
    if !rustix::process::geteuid().is_root() {
        findings.push(Finding::unknown(
            "rights",
            "not all can be looked at without root",
            "run it as root",
        ));
    }
    let containerd = containerd::find(arguments.address.as_deref(), &mut findings);
    let config = configuration(arguments, containerd.as_ref(), &mut findings);
    let mut handlers = Vec::new();
    if let Some(containerd) = &containerd {
        handlers = handlers::examine(containerd, &config, &mut findings);
    }
    cgroups::examine(Path::new("/"), &handlers, &mut findings);
    kernel::examine(Path::new("/"), &mut findings);
    keeping::examine(&config, &mut findings);
    if let Some(containerd) = &containerd
        && !arguments.no_canary
    {
        for handler in &handlers {
            progress(&format!("running a program as {}", handler.name));
            findings.push(canary::run(containerd, handler));
        }
    }
    let works = !findings.iter().any(|finding| finding.state == State::Fault);
    let examined = Examined { works, findings };
    screen.show(&examined, text(&examined))?;
    Ok(u8::from(!works))
}

/// The configuration that a shim of this containerd reads; of one that is wrong the defaults.
fn configuration(
    arguments: &Doctor,
    containerd: Option<&Containerd>,
    findings: &mut Vec<Finding>,
) -> NodeConfig {
    let told = containerd.and_then(|containerd| containerd.variable("SAMPAN_CONFIG"));
    let named = arguments
        .node_config
        .clone()
        .or_else(|| told.map(Into::into));
    let name = named.as_deref().unwrap_or(Path::new(node::CONFIG));
    match node::configuration(named.as_deref()) {
        Ok(config) => {
            let what = if name.exists() {
                format!("{} is read", name.display())
            } else {
                format!("{} is not there, so the defaults hold", name.display())
            };
            findings.push(Finding::good("configuration", what));
            config
        }
        Err(failure) => {
            findings.push(Finding::fault(
                "configuration",
                failure.to_string(),
                "correct the file: no container starts while it cannot be read (docs/reference.md, \"Node configuration\")",
            ));
            NodeConfig::default()
        }
    }
}

fn text(examined: &Examined) -> Text {
    let mut text = Text::default();
    for finding in &examined.findings {
        let state = match finding.state {
            State::Good => good("ok     "),
            State::Advice => careful("advice "),
            State::Unknown => careful("unknown"),
            State::Fault => bad("wrong  "),
        };
        text.line(format!(
            "{state}  {}: {}",
            strong(finding.about),
            finding.what
        ));
        if let Some(fix) = &finding.fix {
            text.line(format!("         -> {fix}"));
        }
    }
    text.line("");
    text.line(if examined.works {
        good("nothing is wrong")
    } else {
        bad("something is wrong")
    });
    text
}
