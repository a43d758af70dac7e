//! The programs of images are compiled when the images come to the node, before a pod asks for them (`--precompile`).
//!
//! The shim compiles when containerd asks it to create a container, once per node, in a helper with bounds. So this
//! program asks containerd for just that, and deletes the container without ever starting it: nothing of the guest runs,
//! the artifact is the one that a pod looks for, and no privilege is needed beyond that of speaking with containerd.
//! One image comes after the other, and none while the node is changed.
mod container;
mod images;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::image::{Content, ImageGuest, Platform, Target, guest_of};
use anyhow::{Context as _, Result};
use tokio::sync::Mutex;

use self::container::{Ahead, Outcome};
use self::images::{Image, Images};
use crate::containerd::Live;
use crate::host::Host;
use crate::metrics::Metrics;
use crate::payload::SHIM;
use crate::settings::Settings;

pub(crate) use container::{LABEL, sweep};

/// Held while the node is changed, or a container is there that is never started.
pub type Turn = Arc<Mutex<()>>;

/// How long to wait for a containerd that is away.
const PAUSE: Duration = Duration::from_secs(5);
/// What a container takes beside the compiler, which may have to wait for another of the same program.
const BESIDE: Duration = Duration::from_secs(60);

/// Compiles ahead.
#[derive(Debug)]
pub struct Precompiler {
    containerd: Live,
    host: Host,
    /// The shim, as containerd is to execute it.
    shim: PathBuf,
    metrics: Arc<Metrics>,
    turn: Turn,
}

impl Precompiler {
    /// One for the containerd that these settings mean.
    #[must_use]
    pub fn new(settings: &Settings, host: &Host, metrics: &Arc<Metrics>, turn: &Turn) -> Self {
        Self {
            containerd: Live::new(settings, host.clone()),
            host: host.clone(),
            shim: settings.prefix.join("current").join(SHIM),
            metrics: Arc::clone(metrics),
            turn: Arc::clone(turn),
        }
    }

    /// Follows containerd's images for ever, also through its restarts.
    pub async fn run(self) {
        loop {
            self.metrics.ready().await;
            if let Err(error) = self.follow().await {
                tracing::info!("compile ahead: {error:#}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Goes through the images that are there, and through those that come.
    ///
    /// # Errors
    /// When containerd does not answer. What is wrong with an image is none.
    async fn follow(&self) -> Result<()> {
        let channel = self.containerd.connect().await?;
        sweep(&channel)
            .await
            .context("remove what an earlier process has left")?;
        let config = self.containerd.shim_config().await?;
        let ahead = Ahead {
            channel: &channel,
            shim: &self.shim,
            deadline: config.compile.max_time() * 2 + BESIDE,
        };
        let mut images = Images::watch(&channel).await?;
        let content = Content::new(self.host.path(&images.content().await?)?);
        let mut done = BTreeSet::new();
        loop {
            let there = images.list().await?;
            // What is pulled once more has perhaps left the store.
            done.retain(|digest| there.iter().any(|image| image.target.digest == *digest));
            for image in &there {
                if !done.contains(&image.target.digest) {
                    self.metrics.ready().await;
                    self.compile(&ahead, &content, image).await?;
                    done.insert(image.target.digest.clone());
                }
            }
            images.changed().await?;
        }
    }

    /// Has an image's program compiled, if the image is one.
    ///
    /// # Errors
    /// When containerd goes away.
    async fn compile(&self, ahead: &Ahead<'_>, content: &Content, image: &Image) -> Result<()> {
        let Ok(digest) = image.target.digest.parse() else {
            return Ok(());
        };
        let target = Target {
            digest,
            media_type: image.target.media_type.clone(),
            size: u64::try_from(image.target.size).ok(),
        };
        let name = &image.name;
        match guest_of(content, &target, &Platform::host()) {
            Ok(ImageGuest::Layer { .. }) => {}
            // A program in a file of the image is known once a pod has named it.
            Ok(ImageGuest::Rootfs { .. }) => return Ok(()),
            Err(error) => {
                // Not for us, or a pod that wants it is told why.
                tracing::debug!("{name} is left to its pods: {error}");
                return Ok(());
            }
        }
        let _turn = self.turn.lock().await;
        match ahead.create(image).await? {
            Outcome::Ready => {
                self.metrics.precompiled.inc();
                tracing::info!("{name} is compiled");
            }
            Outcome::Refused(why) => {
                self.metrics.precompile_failures.inc();
                tracing::warn!("compile {name} ahead: {why}");
            }
        }
        Ok(())
    }
}
