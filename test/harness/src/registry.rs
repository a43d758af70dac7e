use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::image::{Blob, Content};
use crate::poll::until_blocking;
use crate::scratch::Scratch;

/// A registry of our own on a free port of 127.0.0.1, over plain HTTP, ended when dropped; or one that is there already.
#[derive(Debug)]
pub struct Registry {
    address: String,
    /// Ours, if we have started it; the process ends before its directory goes.
    ours: Option<(Child, Scratch)>,
}

impl Registry {
    /// Starts it; it accepts connections when this returns.
    ///
    /// # Errors
    /// When the tools are missing, or the registry does not come up within ten seconds.
    pub fn start() -> Result<Self> {
        let tools = tools::Tools::locate()?;
        let scratch = Scratch::new()?;
        let (config, log) = (
            scratch.dir().join("registry.yml"),
            scratch.dir().join("registry.log"),
        );
        // Port 0: the registry logs the port that the kernel has chosen, so nothing races for it.
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            scratch.dir().join("registry").display()
        );
        fs::write(&config, text).context("write the registry's configuration")?;
        let stderr = File::create(&log).context("create the registry's log")?;
        let mut process = Command::new(&tools.registry)
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("start {}", tools.registry.display()))?;
        let address = until_blocking("the registry's port", Duration::from_secs(10), || {
            let text = fs::read_to_string(&log)?;
            let listening = text
                .split_once("listening on ")
                .and_then(|(_, rest)| rest.split_once(['"', '\n', ' ', ',']));
            if let Some((address, _)) = listening {
                return Ok(Some(address.to_owned()));
            }
            match process.try_wait()? {
                Some(status) => bail!("the registry ended with {status}: {}", text.trim()),
                None => Ok(None),
            }
        });
        match address {
            Ok(address) => Ok(Self {
                address,
                ours: Some((process, scratch)),
            }),
            Err(error) => {
                drop(process.kill());
                drop(process.wait());
                Err(error)
            }
        }
    }

    /// One that is there already, at `HOST:PORT`, over plain HTTP.
    #[must_use]
    pub fn at(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            ours: None,
        }
    }

    /// Host and port, as they stand at the front of a reference.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Pushes an image or an index under `name` (as in `hello:v1`) and returns the whole reference.
    ///
    /// # Errors
    /// When the registry refuses a part of it.
    pub async fn push(&self, name: &str, content: &impl Content) -> Result<String> {
        let (repository, tag) = name
            .split_once(':')
            .context("a name has a tag, as in hello:v1")?;
        for blob in content.blobs() {
            self.push_blob(repository, blob).await?;
        }
        for manifest in content.inner_manifests() {
            self.push_manifest(repository, &manifest.digest(), manifest)
                .await?;
        }
        self.push_manifest(repository, tag, content.manifest())
            .await?;
        Ok(format!("{}/{name}", self.address))
    }

    /// Pushes one blob.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub async fn push_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let uploads = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let answer = send(
            Method::POST,
            &uploads,
            None,
            Bytes::new(),
            StatusCode::ACCEPTED,
        )
        .await?;
        let location = answer
            .get(header::LOCATION)
            .context("the registry names no upload location")?
            .to_str()?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{separator}digest={}", blob.digest());
        send(
            Method::PUT,
            &target,
            Some("application/octet-stream"),
            blob.bytes.clone(),
            StatusCode::CREATED,
        )
        .await?;
        Ok(())
    }

    /// Pushes one manifest or index under a tag or digest. What it refers to must be there.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        manifest: &Blob,
    ) -> Result<()> {
        let target = format!(
            "http://{}/v2/{repository}/manifests/{reference}",
            self.address
        );
        send(
            Method::PUT,
            &target,
            Some(&manifest.media_type),
            manifest.bytes.clone(),
            StatusCode::CREATED,
        )
        .await?;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some((process, _)) = &mut self.ours {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

async fn send(
    method: Method,
    target: &str,
    content_type: Option<&str>,
    body: Bytes,
    expected: StatusCode,
) -> Result<http::HeaderMap> {
    let mut request = Request::builder().method(&method).uri(target);
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = client
        .request(request.body(Full::new(body))?)
        .await
        .with_context(|| format!("{method} {target}"))?;
    let (head, body) = answer.into_parts();
    if head.status != expected {
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        bail!(
            "{method} {target}: {}: {}",
            head.status,
            String::from_utf8_lossy(&body).trim()
        );
    }
    Ok(head.headers)
}
