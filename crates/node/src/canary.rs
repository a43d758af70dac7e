//! Trying the runtime as the kubelet would use it: a pod through CRI, with an image that needs no registry.
mod image;
mod pod;

pub(crate) use image::NAME as IMAGE;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tonic::transport::Channel;

use crate::files;
use crate::host::Host;

/// The program: writes its argument.
const WASM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/canary.wasm"));

/// The kubelet ends every pod that it does not know, as soon as it notices one (every two seconds). What fails this
/// often in a row has another reason.
const TRIES: u32 = 4;

/// What is tried.
#[derive(Debug)]
pub struct Canary {
    host: Host,
    /// The directory of the host for the pod's log.
    logs: PathBuf,
    /// An image of the administrator's, instead of ours.
    image: Option<String>,
}

impl Canary {
    /// A canary whose log lies in the state directory.
    #[must_use]
    pub fn new(host: &Host, state: &Path, image: Option<String>) -> Self {
        Self {
            host: host.clone(),
            logs: state.join("canary"),
            image: image.filter(|image| !image.is_empty()),
        }
    }

    /// Runs it to its end; what it needed is gone when this returns, whatever came of it.
    ///
    /// # Errors
    /// When it did not run, or not as it should.
    pub async fn run(
        &self,
        channel: &Channel,
        handler: &str,
        systemd_cgroup: bool,
        running: &dyn Fn(),
    ) -> Result<()> {
        self.sweep(channel)
            .await
            .context("remove what an earlier canary has left")?;
        let logs = self.host.path(&self.logs)?;
        files::make(&logs)?;
        let tried = async {
            let image = match &self.image {
                Some(image) => image::pull(channel, image).await?,
                None => image::import(channel, WASM).await?,
            };
            let pod = || pod::Pod {
                channel,
                handler,
                image: &image,
                own: self.image.is_none(),
                systemd_cgroup,
                logs: &self.logs,
                logs_here: &logs,
            };
            let mut tries = 1;
            loop {
                match pod().run(running).await {
                    Err(error) if tries < TRIES => {
                        tracing::info!("try {tries} of {TRIES}: {error:#}");
                        tries += 1;
                    }
                    ran => return ran,
                }
                pod::sweep(channel).await?;
            }
        }
        .await
        .with_context(|| format!("run a pod of the handler `{handler}`"));
        let swept = self.sweep(channel).await;
        tried.and(swept.context("remove the canary"))
    }

    /// Removes all that a canary may have left.
    ///
    /// # Errors
    /// What containerd says.
    pub async fn sweep(&self, channel: &Channel) -> Result<()> {
        pod::sweep(channel).await?;
        image::remove(channel).await?;
        files::remove_all(&self.host.path(&self.logs)?)
    }
}
