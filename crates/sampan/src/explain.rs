//! `sampan explain`: what the containers of a pod will see and be refused.

mod answer;
mod container;
mod meaning;
mod text;

use crate::arguments::Explain;
use crate::failure::{Failure, Kind, Outcome};
use crate::output::Screen;
use crate::pod::{self, Given};
use answer::Answer;

pub(crate) use container::{Asked, describe};

pub(crate) fn explain(arguments: &Explain, screen: &mut Screen<'_>) -> Outcome<u8> {
    let given = Given::new(&arguments.class, arguments.node_config.as_deref())?;
    let manifests = pod::read(&arguments.files)?;
    if manifests.workloads.is_empty() {
        return Err(Failure::new(
            Kind::Wrong,
            format!(
                "{}: there is no pod and nothing that makes pods",
                arguments.files.join(", ")
            ),
        ));
    }
    let mut answers = Vec::new();
    for workload in &manifests.workloads {
        for (container, first) in workload.containers() {
            let wanted = arguments.container.as_ref();
            if wanted.is_none_or(|name| *name == container.name) {
                answers.push(Answer::of(workload, &container, first, &manifests, &given)?);
            }
        }
    }
    if answers.is_empty() {
        let names = manifests
            .workloads
            .iter()
            .flat_map(pod::Workload::containers);
        let names: Vec<_> = names.map(|(container, _)| container.name).collect();
        return Err(Failure::new(
            Kind::NotFound,
            format!(
                "there is no container `{}`, only {}",
                arguments.container.as_deref().unwrap_or_default(),
                names.join(", ")
            ),
        ));
    }
    let text = text::text(&answers);
    screen.show(&answers, text)?;
    Ok(u8::from(
        answers.iter().any(|answer| !answer.faults.is_empty()),
    ))
}
