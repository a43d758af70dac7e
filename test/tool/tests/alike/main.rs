//! The tool beside containers: the same guest, in a container of containerd and by `sampan run`.
#![forbid(unsafe_code)]

mod commands;
mod images;
mod insight;
mod manifests;
mod node;
mod refusals;
mod servers;
mod wasmtime;

use std::process::ExitCode;

use anyhow::Result;
use harness::{Containerd, Version, image};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    if let Some(code) = tool_tests::as_tool() {
        return code;
    }
    let cases = [
        case("a_command_ends_alike", commands::end_alike),
        case("volumes_are_alike", commands::see_the_same_volumes),
        case("every_guest_has_a_row", commands::all_have_rows),
        case("every_refusal_is_foreseen", refusals::are_foreseen),
        case("servers_answer_alike", servers::answer_alike),
        case(
            "images_of_the_tool_run_in_pods",
            images::of_the_tool_run_in_pods,
        ),
        case("images_of_others_are_read", images::of_others_are_read),
        case("manifests_are_explained", manifests::are_explained),
        case("wasmtime_does_the_same", wasmtime::does_the_same),
        case("a_node_is_examined", node::is_examined),
        case("guests_are_shown", node::guests_are_shown),
        case("dumps_are_left", insight::dumps_are_left),
        case("guests_are_profiled", insight::guests_are_profiled),
        case("lines_are_objects", insight::lines_are_objects),
    ];
    libtest_mimic::run(&Arguments::from_args(), cases.into()).exit_code()
}

fn case<F: Future<Output = Result<()>> + 'static>(name: &str, run: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime
            .block_on(run())
            .map_err(|error| Failed::from(format!("{error:#}")))
    })
}

/// A containerd without CRI; `None` where the test has to be skipped, which has been said then.
async fn containerd() -> Result<Option<Containerd>> {
    if !harness::able()? {
        return Ok(None);
    }
    Containerd::builder()
        .version(Version::V2)
        .without_cri()
        .start()
        .await
        .map(Some)
}

/// A containerd with CRI, likewise.
async fn with_cri() -> Result<Option<Containerd>> {
    if !harness::able()? {
        return Ok(None);
    }
    Containerd::builder()
        .version(Version::V2)
        .start()
        .await
        .map(Some)
}

/// Imports an image with a guest as its one layer, and returns its reference.
async fn layer(containerd: &Containerd, guest: &str) -> Result<String> {
    let reference = format!("example.test/{}:v1", guest.replace('.', "-"));
    let image = image::bytecode_alliance(harness::guest(guest)?);
    containerd.import(&reference, &image).await?;
    Ok(reference)
}

/// Where a guest lies.
fn path(guest: &str) -> Result<String> {
    let path = tools::cache_dir()?.join("guests").join(guest);
    Ok(path.display().to_string())
}
