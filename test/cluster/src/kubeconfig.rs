//! How a client finds the API and says who it is.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use crate::authority::{Authority, Identity};

/// Writes `DIR/NAME.kubeconfig`.
pub(crate) fn write(
    dir: &Path,
    name: &str,
    api: u16,
    authority: &Authority,
    identity: &Identity,
) -> Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{api}"),
            "certificate-authority": authority.certificate(),
        }}],
        "users": [{ "name": name, "user": {
            "client-certificate": identity.certificate,
            "client-key": identity.key,
        }}],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": name } }],
        "current-context": "test",
    });
    let path = dir.join(format!("{name}.kubeconfig"));
    fs::write(&path, config.to_string()).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// A client that is whoever a kubeconfig says.
///
/// # Errors
/// When the file cannot be read, or what it names.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("read {}", kubeconfig.display()))?;
    Client::try_from(config).context("make a client of the API")
}
