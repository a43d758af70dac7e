//! Registries: manifests and blobs come into a content store by their digests; nothing else is trusted of them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use http::HeaderValue;
use image::{Content, DOCUMENT_LIMIT, GUEST_LIMIT, Target};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use plan::Digest;
use tokio::runtime::Runtime;

use crate::arguments::Registry;
use crate::failure::{Failure, Kind, Outcome};
use crate::output::progress;
use crate::package::{MANIFEST, Package};
use crate::source::image::{entries, media_type};

/// What we take for a manifest.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// How long a registry may take to be there, and to go on with an answer.
const CONNECT: Duration = Duration::from_secs(15);
const READ: Duration = Duration::from_secs(60);
/// What docker writes its credentials for Docker Hub under.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A repository of a registry, and who we are there.
struct Connection {
    client: Client,
    runtime: Runtime,
    reference: Reference,
    credentials: RegistryAuth,
}

/// An image of a repository, to be fetched.
pub(super) struct Remote {
    connection: Connection,
    content: Content,
    /// Digests that indexes name: these are manifests, all others are blobs.
    manifests: BTreeSet<String>,
}

/// Sends an image: its blobs first, then the manifest that names them.
pub(crate) fn push(name: &str, registry: &Registry, package: &Package) -> Outcome<()> {
    let Connection {
        client,
        runtime,
        reference,
        credentials,
    } = Connection::open(name, registry)?;
    if reference.digest().is_some() {
        return Err(Failure::new(
            Kind::Wrong,
            format!(
                "{reference} names an image by its digest, which follows from the program: name a tag"
            ),
        ));
    }
    progress(&format!("sending {reference}"));
    let sent = async {
        client
            .auth(&reference, &credentials, RegistryOperation::Push)
            .await?;
        for blob in &package.blobs {
            let digest = blob.digest.to_string();
            if !client.blob_exists(&reference, &digest).await? {
                client
                    .push_blob(&reference, blob.bytes.clone(), &digest)
                    .await?;
            }
        }
        let media_type = HeaderValue::from_static(MANIFEST);
        let manifest = package.manifest.bytes.clone();
        client
            .push_manifest_raw(&reference, manifest, media_type)
            .await
    };
    let sent = runtime.block_on(sent);
    sent.map(drop).map_err(|error| {
        Failure::at(
            Kind::System,
            format!("cannot send the image {reference}"),
            error,
        )
    })
}

impl Connection {
    /// Nothing is asked yet.
    fn open(name: &str, registry: &Registry) -> Outcome<Self> {
        let reference: Reference = name.parse().map_err(|error| {
            Failure::at(
                Kind::Wrong,
                format!("`{name}` is neither a file nor the name of an image"),
                anyhow::Error::new::<oci_client::ParseError>(error),
            )
        })?;
        // A second one is refused, and there is none other here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = registry.plain_http || is_here(reference.registry());
        let client = Client::new(ClientConfig {
            protocol: if plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            // Without them a registry that says nothing is waited for without end.
            connect_timeout: Some(CONNECT),
            read_timeout: Some(READ),
            user_agent: concat!("sampan/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::at(Kind::System, "cannot start", error))?;
        Ok(Self {
            credentials: credentials(&reference)?,
            client,
            runtime,
            reference,
        })
    }
}

impl Remote {
    /// Nothing is fetched yet; what comes is put into `content`.
    pub(super) fn open(name: &str, registry: &Registry, content: &Content) -> Outcome<Self> {
        std::fs::create_dir_all(content.root().join("blobs/sha256"))
            .map_err(|error| Failure::at(Kind::System, "cannot make a directory", error))?;
        Ok(Self {
            connection: Connection::open(name, registry)?,
            content: content.clone(),
            manifests: BTreeSet::new(),
        })
    }

    /// Follows the name to a manifest or an index.
    pub(super) fn resolve(&mut self) -> Outcome<Target> {
        progress(&format!("asking for {}", self.connection.reference));
        let (bytes, digest) = self.manifest(&self.connection.reference.clone())?;
        Ok(Target {
            digest,
            media_type: media_type(&bytes),
            size: Some(bytes.len() as u64),
        })
    }

    /// Brings what has this digest.
    pub(super) fn fetch(&mut self, digest: &Digest) -> Outcome<()> {
        let name = digest.to_string();
        if self.manifests.contains(&name) {
            let reference = self.connection.reference.clone_with_digest(name);
            let (_, found) = self.manifest(&reference)?;
            return if found == *digest {
                Ok(())
            } else {
                Err(Failure::new(
                    Kind::System,
                    format!(
                        "{} gave {found} for {digest}",
                        self.connection.reference.registry()
                    ),
                ))
            };
        }
        progress(&format!("fetching {digest}"));
        self.connection.runtime.block_on(self.blob(digest))
    }

    fn manifest(&mut self, reference: &Reference) -> Outcome<(Vec<u8>, Digest)> {
        let pulled = self
            .connection
            .runtime
            .block_on(self.connection.client.pull_manifest_raw(
                reference,
                &self.connection.credentials,
                &MANIFESTS,
            ));
        let (bytes, _) = pulled.map_err(|error| failed(reference, error))?;
        // By its own content, whatever the registry says it is.
        let digest = image::digest_of(&mut &*bytes, DOCUMENT_LIMIT)
            .map_err(|error| Failure::at(Kind::Refused, format!("image {reference}"), error))?;
        std::fs::write(self.content.path(&digest), &bytes).map_err(unwritten)?;
        self.manifests.extend(entries(&bytes));
        Ok((bytes.to_vec(), digest))
    }

    async fn blob(&self, digest: &Digest) -> Outcome<()> {
        use futures::TryStreamExt as _;
        let name = digest.to_string();
        self.connection
            .client
            .auth(
                &self.connection.reference,
                &self.connection.credentials,
                RegistryOperation::Pull,
            )
            .await
            .map_err(|error| failed(&self.connection.reference, error))?;
        let mut stream = self
            .connection
            .client
            .pull_blob_stream(&self.connection.reference, name.as_str())
            .await
            .map_err(|error| failed(&self.connection.reference, error))?
            .stream;
        // Under its name only when it is whole.
        let mut part = tempfile::NamedTempFile::new_in(self.content.root()).map_err(unwritten)?;
        let mut size = 0;
        while let Some(bytes) = stream
            .try_next()
            .await
            .map_err(|error| Failure::at(Kind::System, format!("cannot fetch {digest}"), error))?
        {
            size += bytes.len() as u64;
            if size > GUEST_LIMIT {
                return Err(Failure::new(
                    Kind::Refused,
                    format!("{digest} has more than {GUEST_LIMIT} bytes, the most that is taken"),
                ));
            }
            part.write_all(&bytes).map_err(unwritten)?;
        }
        part.persist(self.content.path(digest))
            .map_err(|error| unwritten(error.error))?;
        Ok(())
    }
}

fn unwritten(error: std::io::Error) -> Failure {
    Failure::at(Kind::System, "cannot keep what was fetched", error)
}

fn failed(reference: &Reference, error: oci_client::errors::OciDistributionError) -> Failure {
    use oci_client::errors::OciDistributionError as Error;
    let kind = match &error {
        Error::ImageManifestNotFoundError(_) => Kind::NotFound,
        Error::ServerError { code: 404, .. } => Kind::NotFound,
        Error::RegistryError { envelope, .. }
            if envelope.errors.iter().any(|error| {
                use oci_client::errors::OciErrorCode as Code;
                matches!(
                    error.code,
                    Code::ManifestUnknown | Code::NameUnknown | Code::BlobUnknown
                )
            }) =>
        {
            Kind::NotFound
        }
        _ => Kind::System,
    };
    Failure::at(kind, format!("cannot get the image {reference}"), error)
}

/// A registry on this machine is spoken to without TLS, as docker and containerd do.
fn is_here(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// What `docker login` or `podman login` left, also with a credential helper; nobody's where there is nothing.
fn credentials(reference: &Reference) -> Outcome<RegistryAuth> {
    let server = match reference.registry() {
        "docker.io" => DOCKER_HUB,
        other => other,
    };
    let found = match docker_credential::get_credential(server) {
        Err(absent) if is_absent(&absent) => docker_credential::get_podman_credential(server),
        found => found,
    };
    match found {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(RegistryAuth::Basic(user, password))
        }
        Ok(DockerCredential::IdentityToken(_)) => Err(Failure::new(
            Kind::System,
            format!(
                "the credentials of {server} are an identity token: log in with user and password"
            ),
        )),
        Err(absent) if is_absent(&absent) => Ok(RegistryAuth::Anonymous),
        Err(error) => Err(Failure::at(
            Kind::System,
            format!("cannot read the credentials of {server}"),
            anyhow::anyhow!("{error}"),
        )),
    }
}

const fn is_absent(error: &CredentialRetrievalError) -> bool {
    matches!(
        error,
        CredentialRetrievalError::ConfigNotFound
            | CredentialRetrievalError::ConfigReadError
            | CredentialRetrievalError::NoCredentialConfigured
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_registries_have_no_tls() {
        for (registry, here) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.1.2.3", true),
            ("[::1]:5000", true),
            ("registry.example", false),
            ("registry.example:5000", false),
            ("localhost.example:5000", false),
        ] {
            assert_eq!(is_here(registry), here, "{registry}");
        }
    }
}
