//! Settings as Kubernetes brings them: annotations of pods, options of handlers.

use anyhow::Result;
use cri_tests::house_of;
use harness::{Containerd, Handler, Version, runtime};
use serde_json::json;

async fn settings(version: Version) -> Result<()> {
    let closed = Handler::new("sampan-closed", runtime())
        .option("SystemdCgroup", false)
        .option("network", "none");
    let builder = Containerd::builder()
        .version(version)
        .handler(closed)
        .sampan(json!({ "ceilings": { "max-stack": "1Mi" } }));
    let Some(house) = house_of(builder).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let reference = house.pulled_guest("probe-p2", "wasip2").await?;

    // A pod's annotation reaches its containers; a container's own counts as well.
    let pod = cri
        .pod("sampan")
        .annotation("sampan.dev/network", "none")
        .run()
        .await?;
    let container = pod
        .container("guest", &reference)
        .command(["/", "tcp-listen", "0"])
        .create()
        .await?;
    container.start().await?;
    assert_ne!(container.wait().await?.exit_code, 0);
    let greedy = pod
        .container("greedy", &reference)
        .command(["/"])
        .annotation("sampan.dev/max-stack", "2Mi")
        .create()
        .await?;
    let error = format!(
        "{:#}",
        greedy.start().await.expect_err("beyond the ceiling")
    );
    for part in ["sampan.dev/max-stack", "2Mi", "1Mi", "[ceilings]"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    pod.remove().await?;

    // The handler's options are the RuntimeClass's word.
    let pod = cri.pod("sampan-closed").run().await?;
    let container = pod
        .container("guest", &reference)
        .command(["/", "tcp-listen", "0"])
        .create()
        .await?;
    container.start().await?;
    assert_ne!(container.wait().await?.exit_code, 0);
    pod.remove().await?;
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_handlers_have_their_say_on_2() -> Result<()> {
    settings(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_handlers_have_their_say_on_1_7() -> Result<()> {
    settings(Version::V1_7).await
}
