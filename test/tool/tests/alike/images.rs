//! Images: those that the tool makes run in pods, those that others make are read.

use anyhow::{Context, Result, ensure};
use harness::image::{self, Content, Index, Rootfs};
use harness::{Containerd, Registry, Version, guest};
use serde_json::Value;
use tool_tests::Tool;

use crate::path;

/// What the tool makes, sent to a registry, runs in a pod, and comes back as it was.
pub(crate) async fn of_the_tool_run_in_pods() -> Result<()> {
    if !harness::able()? {
        return Ok(());
    }
    let registry = Registry::start()?;
    let containerd = Containerd::builder()
        .version(Version::V2)
        .registry(&registry)
        .start()
        .await?;
    let cri = containerd.cri().await?;
    let tool = Tool::new()?;
    for (form, program) in [
        ("cncf", "hello.wasm"),
        ("cncf", "hello-p2.wasm"),
        ("bytecode-alliance", "hello-p2.wasm"),
        ("content", "hello.wasm"),
    ] {
        let who = program.trim_end_matches(".wasm");
        let reference = format!("{}/{form}/{who}:v1", registry.address());
        let file = path(program)?;
        let (pushed, code) = tool.json(&["push", &file, &reference, "--form", form])?;
        ensure!(code == Some(0), "{form} {who}: {pushed}");

        // In a directory it is the same image, however often.
        for turn in ["one", "two"] {
            let place = tool.dir().join(format!("{form}-{who}-{turn}"));
            let place = place.to_str().context("a path in text")?.to_owned();
            let (packed, _) = tool.json(&["pack", &file, "--to", &place, "--form", form])?;
            for field in ["digest", "id", "layer"] {
                ensure!(
                    packed[field] == pushed[field],
                    "{form} {who}: {packed} {pushed}"
                );
            }
            let (report, code) = tool.json(&["inspect", &place])?;
            ensure!(
                code == Some(0) && report["image"]["digest"] == packed["digest"],
                "{report:#}"
            );
        }

        let (report, _) = tool.json(&["inspect", &reference])?;
        ensure!(
            report["image"]["manifest"] == pushed["digest"],
            "{report:#}"
        );
        ensure!(report["digest"] == pushed["layer"], "{report:#}");
        let ran = tool.run(&["run", &reference])?;
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        ensure!(
            said.starts_with(&format!("hello from {who}\n")),
            "{form} {who}: {ran:?}"
        );

        cri.pull(&reference)
            .await
            .with_context(|| format!("pull {reference}"))?;
        let id = cri.image_id(&reference).await?;
        ensure!(
            id.as_deref() == pushed["id"].as_str(),
            "{form} {who}: {id:?}, {pushed}"
        );
        let pod = cri.pod("sampan").run().await?;
        let container = pod
            .container("guest", &reference)
            .command(["/"])
            .create()
            .await?;
        container.start().await?;
        let exit = container.wait().await?;
        let logs = container.logs()?;
        pod.remove().await?;
        ensure!(
            exit.exit_code == 0 && logs.stdout.starts_with(&format!("hello from {who}\n")),
            "{form} {who}: {exit:?} {logs:?}"
        );
    }
    containerd.assert_clean().await
}

async fn inspected(
    tool: &Tool,
    registry: &Registry,
    name: &str,
    content: &(impl Content + Sync),
) -> Result<(Value, String)> {
    let reference = registry.push(name, content).await?;
    let (report, code) = tool.json(&["inspect", &reference])?;
    ensure!(code == Some(0), "{reference}: {report:#}");
    let ran = tool.run(&["run", &reference])?;
    Ok((report, String::from_utf8_lossy(&ran.stdout).into_owned()))
}

/// Every format that is in use, and what is worth knowing of it.
pub(crate) async fn of_others_are_read() -> Result<()> {
    if !harness::able()? {
        return Ok(());
    }
    let registry = Registry::start()?;
    let tool = Tool::new()?;
    let hello = || guest("hello.wasm");
    let files = |platform: &str| -> Result<image::Image> {
        Rootfs::new()
            .file("/bin/app.wasm", b"removed by the next layer")
            .layer()
            .file("/bin/app.wasm", hello()?)
            .entrypoint(["/bin/app.wasm", "first"])
            .platform(platform)
            .build()
    };
    let host = if cfg!(target_arch = "aarch64") {
        "linux/arm64"
    } else {
        "linux/amd64"
    };
    let advice = |report: &Value, words: &str| {
        ensure!(
            report["advice"].to_string().contains(words),
            "no {words:?} in {report:#}"
        );
        Ok(())
    };

    let (report, said) = inspected(
        &tool,
        &registry,
        "cncf:v1",
        &image::cncf(hello()?, "wasip1"),
    )
    .await?;
    ensure!(said.starts_with("hello from hello\n"), "{said}");
    ensure!(
        report["image"]["boundBy"] == "layerDigests of the config",
        "{report:#}"
    );
    advice(&report, "ctr run")?;
    let (report, said) = inspected(&tool, &registry, "oras:v1", &image::oras(hello()?)).await?;
    ensure!(said.starts_with("hello from hello\n"), "{said}");
    advice(&report, "containerd 1.7")?;
    advice(&report, "no command specified")?;
    for (name, content) in [
        ("ba:v1", image::bytecode_alliance(hello()?)),
        ("content:v1", image::content_layer(hello()?)),
        ("module:v1", image::module_content_layer(hello()?)),
    ] {
        let (_, said) = inspected(&tool, &registry, name, &content).await?;
        ensure!(said.starts_with("hello from hello\n"), "{name}: {said}");
    }
    let (report, said) = inspected(&tool, &registry, "files:v1", &files(host)?).await?;
    ensure!(
        said.contains("arg 0 /bin/app.wasm\narg 1 first\n"),
        "{said}"
    );
    ensure!(report["name"] == "/bin/app.wasm", "{report:#}");
    let (report, _) = inspected(&tool, &registry, "wasi:v1", &files("wasi/wasm")?).await?;
    advice(&report, "containerd 2.3")?;
    let index = Index::new(vec![files("linux/s390x")?, files(host)?]);
    let (report, said) = inspected(&tool, &registry, "index:v1", &index).await?;
    ensure!(said.starts_with("hello from hello\n"), "{said}");
    ensure!(
        report["image"]["index"] == serde_json::json!(["linux/s390x", host]),
        "{report:#}"
    );
    let index = Index::new(vec![files("wasi/wasm")?]);
    let (report, _) = inspected(&tool, &registry, "only:v1", &index).await?;
    advice(&report, "no match for platform")?;

    let missing = format!("{}/none:v1", registry.address());
    let output = tool.run(&["inspect", &missing])?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    let output = tool.run(&["run", &missing])?;
    ensure!(output.status.code() == Some(127), "{output:?}");
    Ok(())
}
