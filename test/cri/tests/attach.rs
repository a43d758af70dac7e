//! `kubectl attach`: the streams of a container's own program, from crictl.

use anyhow::{Context, Result};
use cri_tests::{At, House, crictl, house};
use harness::{CriContainer, Pod, Version};
use k8s_cri::v1::ContainerConfig;

/// A container that repeats what it is told, and reads already.
async fn reading<'a>(
    pod: &Pod<'a>,
    name: &str,
    image: &str,
    edit: impl FnOnce(&mut ContainerConfig),
) -> Result<CriContainer<'a>> {
    let container = pod
        .container(name, image)
        .command(["/app.wasm", "lines"])
        .config(|config| {
            config.stdin = true;
            edit(config);
        })
        .create()
        .await?;
    container.start().await?;
    container.stdout_contains("reading").await?;
    Ok(container)
}

async fn attached(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = house.pulled_guest("probe", "wasip1").await?;
    let pod = cri.pod("sampan").run().await?;
    pipes(&house, &pod, &image).await?;
    watching(&house, &pod, &image).await?;
    terminal(&house, &pod, &image).await?;
    pod.remove().await?;
    house.containerd.assert_clean().await
}

async fn pipes(house: &House, pod: &Pod<'_>, image: &str) -> Result<()> {
    // `stdin: true` alone: who lets go leaves the program as it is, and the next one finds it there.
    let container = reading(pod, "kept", image, |_| {}).await?;
    let attach = format!("attach -i {}", container.id());
    let text = crictl(house, At::Pipes, &attach, &[("", "one\n"), ("got one", "")]).await?;
    assert_eq!(text, "got one\n");
    let text = crictl(house, At::Pipes, &attach, &[("", "two\n"), ("got two", "")]).await?;
    assert_eq!(text, "got two\n");
    container.stop(0).await?;
    let logs = container.logs()?.stdout;
    assert!(logs.starts_with("reading\ngot one\ngot two\n"), "{logs}");
    let text = crictl(house, At::Pipes, &attach, &[]).await?;
    assert!(text.contains("CONTAINER_EXITED"), "{text}");

    // `stdinOnce: true`: the end of the first one's input is the program's.
    let container = reading(pod, "once", image, |config| config.stdin_once = true).await?;
    let attach = format!("attach -i {}", container.id());
    let text = crictl(house, At::Pipes, &attach, &[("", "one\n"), ("got one", "")]).await?;
    assert_eq!(text, "got one\nend of input\n");
    assert_eq!(container.wait().await?.exit_code, 0);
    Ok(())
}

/// Who has no input to give sees what is written from then on, however many there are.
async fn watching(house: &House, pod: &Pod<'_>, image: &str) -> Result<()> {
    let container = pod
        .container("watched", image)
        .command(["/app.wasm", "tick", "50"])
        .create()
        .await?;
    container.start().await?;
    let watch = format!("attach {} | head -n 3", container.id());
    let one = crictl(house, At::Pipes, &watch, &[]);
    let other = crictl(house, At::Pipes, &watch, &[]);
    for text in <[_; 2]>::from(tokio::try_join!(one, other)?) {
        let ticks = text
            .lines()
            .map(|line| anyhow::Ok(line.strip_prefix("tick ").context("a tick")?.parse()?));
        let ticks: Vec<u64> = ticks.collect::<Result<_>>().with_context(|| text.clone())?;
        assert_eq!(ticks.len(), 3, "{text}");
        assert!(ticks.windows(2).all(|two| two[0] + 1 == two[1]), "{text}");
    }
    // They have gone, and it goes on.
    let next = container.logs()?.stdout.lines().count() + 2;
    container.stdout_contains(&format!("tick {next}\n")).await?;
    container.stop(0).await?;
    Ok(())
}

async fn terminal(house: &House, pod: &Pod<'_>, image: &str) -> Result<()> {
    let container = reading(pod, "terminal", image, |config| config.tty = true).await?;
    let attach = format!("attach -it {}", container.id());
    // A terminal shows what is typed; Ctrl-D ends the input.
    let typed = [("", "ahoy\r"), ("got ahoy", "\x04")];
    let text = crictl(house, At::Terminal, &attach, &typed).await?;
    assert!(
        text.contains("ahoy\r\ngot ahoy\r\n") && text.contains("end of input\r\n"),
        "{text:?}"
    );
    assert_eq!(container.wait().await?.exit_code, 0);
    let logs = container.logs()?.stdout;
    assert!(logs.contains("got ahoy"), "{logs:?}");

    // Ctrl-C is a signal to the program.
    let container = reading(pod, "interrupted", image, |config| config.tty = true).await?;
    let attach = format!("attach -it {}", container.id());
    let typed = [("", "ahoy\r"), ("got ahoy", "\x03")];
    crictl(house, At::Terminal, &attach, &typed).await?;
    assert_eq!(container.wait().await?.exit_code, 130);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_running_container_on_2() -> Result<()> {
    attached(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_running_container_on_1_7() -> Result<()> {
    attached(Version::V1_7).await
}
