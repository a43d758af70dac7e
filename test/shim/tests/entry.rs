//! Entry points: what the first word of a command line means, and what the guest sees of it.

use anyhow::Result;
use harness::image::Rootfs;
use harness::{Containerd, Version, guest};
use shim_tests::{containerd, expect, layer, refusal, rootfs};
use tonic::Code;

async fn stdout(containerd: &Containerd, image: &str, args: &[&str]) -> Result<String> {
    let output = containerd
        .task(image)
        .args(args.iter().copied())
        .run()
        .await?;
    assert_eq!(output.status, 0, "{args:?}: {}", output.stderr());
    Ok(output.stdout())
}

/// The arguments that `hello` saw, from its `arg N VALUE` lines.
fn seen(stdout: &str) -> Vec<&str> {
    stdout
        .lines()
        .filter_map(|line| line.strip_prefix("arg ")?.split_once(' '))
        .map(|(_, value)| value)
        .collect()
}

/// A layer is the program, whatever the path says; the guest sees the first word as it stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_runs_by_any_name() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for guest in ["hello.wasm", "hello-p2.wasm", "hello-p3.wasm"] {
        let image = layer(&containerd, guest).await?;
        for args in [
            &["/"][..],
            &["/app.wasm"],
            &["app.wasm", "one", "--two=2 words", ""],
        ] {
            let stdout = stdout(&containerd, &image, args).await?;
            assert_eq!(seen(&stdout), args, "{guest}: {stdout}");
        }
    }
    containerd.assert_clean().await
}

/// In a rootfs the first word is a path: absolute, from the working directory, or from PATH.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_runs_by_its_path() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = "example.test/paths:v1";
    let content = Rootfs::new()
        .file("/opt/app.wasm", guest("hello.wasm")?)
        .file("/usr/bin/tool.wasm", guest("hello-p2.wasm")?)
        .symlink("/bin/link.wasm", "../opt/app.wasm")
        .symlink("/absolute.wasm", "/opt/app.wasm")
        .build()?;
    containerd.import(image, &content).await?;
    for (args, who) in [
        (&["/opt/app.wasm", "arg"][..], "hello"),
        (&["/bin/link.wasm"], "hello"),
        (&["/absolute.wasm"], "hello"),
        (&["tool.wasm", "arg"], "hello-p2"),
        (&["./opt/app.wasm"], "hello"),
    ] {
        let stdout = stdout(&containerd, image, args).await?;
        assert!(
            stdout.starts_with(&format!("hello from {who}\n")),
            "{args:?}: {stdout}"
        );
        assert_eq!(seen(&stdout), args);
    }
    let output = containerd
        .task(image)
        .cwd("/opt")
        .args(["./app.wasm"])
        .run()
        .await?;
    assert!(
        output.stdout().starts_with("hello from hello\n"),
        "{}",
        output.stdout()
    );
    containerd.assert_clean().await
}

/// `#export` calls a function of a module or a component instead of its entry point.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_called() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let exports = layer(&containerd, "exports.wasm").await?;
    for name in ["#say", "/#say", "/app.wasm#say", "app.wasm#say"] {
        assert_eq!(
            stdout(&containerd, &exports, &[name, "arg"]).await?,
            "hello from exports\n",
            "{name}"
        );
    }
    assert_eq!(stdout(&containerd, &exports, &["#add_nothing"]).await?, "");
    // What a function returns has no meaning for a container.
    assert_eq!(stdout(&containerd, &exports, &["#answer"]).await?, "");
    let failed = containerd.task(&exports).args(["#fails"]).run().await?;
    assert_eq!(failed.status, 121, "{}", failed.stderr());

    let both = layer(&containerd, "start-and-exports.wasm").await?;
    let default = stdout(&containerd, &both, &["/"]).await?;
    let named = stdout(&containerd, &both, &["#say"]).await?;
    assert_ne!(default, named);

    let component = layer(&containerd, "run-me.wasm").await?;
    let said = stdout(&containerd, &component, &["#run-me"]).await?;
    assert!(said.contains("run-me"), "{said}");
    let refuses = containerd.task(&component).args(["#refuses"]).run().await?;
    assert_eq!(refuses.status, 1, "{}", refuses.stderr());
    let panics = containerd.task(&component).args(["#fails"]).run().await?;
    assert_eq!(panics.status, 121, "{}", panics.stderr());

    let file = rootfs(&containerd, "exports.wasm").await?;
    assert_eq!(
        stdout(&containerd, &file, &["/app.wasm#say"]).await?,
        "hello from exports\n"
    );
    containerd.assert_clean().await
}

/// What cannot be called is refused by Create, with the functions that there are.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_cannot_be_called_is_refused() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let exports = layer(&containerd, "exports.wasm").await?;
    let component = layer(&containerd, "run-me.wasm").await?;
    for (image, entry, code, names) in [
        (
            &exports,
            "#missing",
            Code::NotFound,
            &["`missing`", "`say`"][..],
        ),
        (
            &exports,
            "#not_a_function",
            Code::NotFound,
            &["`not_a_function`", "`say`"],
        ),
        (
            &exports,
            "#add",
            Code::FailedPrecondition,
            &["`add`", "i32, i32"],
        ),
        (&exports, "/", Code::InvalidArgument, &["`_start`", "`say`"]),
        (
            &component,
            "#missing",
            Code::NotFound,
            &["`missing`", "`run-me`"],
        ),
        (&component, "#add", Code::FailedPrecondition, &["`add`"]),
        (
            &component,
            "/",
            Code::InvalidArgument,
            &["wasi:cli/run", "`run-me`"],
        ),
    ] {
        let status = refusal(containerd.task(image).args([entry]).create().await)?;
        expect(&status, code, names);
    }
    containerd.assert_clean().await
}

/// The image's own entry point and command are what runs when the container names none.
#[tokio::test(flavor = "multi_thread")]
async fn the_images_own_entry_point_is_the_default() -> Result<()> {
    let Some(containerd) = containerd(Version::V1_7).await? else {
        return Ok(());
    };
    let image = "example.test/default:v1";
    let content = Rootfs::new()
        .file("/app.wasm", guest("hello.wasm")?)
        .entrypoint(["/app.wasm", "first"])
        .cmd(["second"])
        .build()?;
    containerd.import(image, &content).await?;
    let stdout = stdout(&containerd, image, &[]).await?;
    assert_eq!(seen(&stdout), ["/app.wasm", "first", "second"]);
    containerd.assert_clean().await
}
