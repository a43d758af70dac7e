//! Temporary: the node program by hand against a private cluster.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, NODE};
use harness::until;

#[tokio::test(flavor = "multi_thread")]
async fn by_hand() -> Result<()> {
    let cluster = Cluster::builder().without_sampan().start().await?;
    let bin = harness::built_dir()?;
    let dir = cluster.containerd().scratch().dir().to_owned();
    std::fs::create_dir_all(dir.join("opt"))?;
    let node = |args: &[&str]| {
        let mut command = tokio::process::Command::new(bin.join("sampan-node"));
        command
            .args(args)
            .arg("--host=/")
            .arg(format!("--payload={}", bin.display()))
            .arg(format!("--prefix={}", dir.join("opt/sampan").display()))
            .arg(format!("--containerd-socket={}", cluster.containerd().socket().display()))
            .args(["--restart=signal", "--lease-namespace=default", "--listen=127.0.0.1:0"])
            .args(["--check-interval=1"])
            .arg(format!("--node-name={NODE}"))
            .env("KUBECONFIG", cluster.kubeconfig())
            .kill_on_drop(true);
        command
    };
    let kubectl = async |args: &[&str]| {
        let output = tokio::process::Command::new(cluster.kubectl())
            .args(args)
            .env("KUBECONFIG", cluster.kubeconfig())
            .output()
            .await?;
        anyhow::Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    };
    let mut running = node(&["run"]).spawn()?;
    let labelled = async || {
        let text = kubectl(&["get", "node", NODE, "-o", "jsonpath={.metadata.labels}"]).await?;
        Ok(text.contains(r#""sampan.dev/ready":"true""#).then_some(()))
    };
    let result = until("label", Duration::from_secs(60), labelled).await;
    eprintln!("{}", kubectl(&["describe", "node", NODE]).await?);
    eprintln!("{}", kubectl(&["get", "lease", "-o", "yaml", "sampan-node-restart"]).await?);
    result?;
    kubectl(&["label", "node", NODE, "sampan.dev/ready-"]).await?;
    until("label again", Duration::from_secs(30), labelled).await?;
    eprintln!("relabelled");
    let out = node(&["uninstall", "--cluster"]).output().await?;
    eprintln!("{} {}", out.status, String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success());
    eprintln!("{}", kubectl(&["get", "node", NODE, "-o", "jsonpath={.metadata}"]).await?);
    eprintln!("{}", kubectl(&["get", "events", "-A"]).await?);
    ensure!(!dir.join("opt/sampan").exists());
    harness::process::signal(running.id().context("pid")?, nix::sys::signal::Signal::SIGTERM)?;
    ensure!(running.wait().await?.success());
    cluster.stop().await
}
