//! Which program a container runs: a wasm layer of its image, a wasm file of its rootfs, or a
//! native program.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use image::{
    Binding, Content, EntryError, Fault, Found, Guest, ImageError, ImageGuest, Platform, Sealed,
    Target,
};
use plan::{Digest, GuestPlan, IMAGE_NAME, MountPlan, MountSource, Plan};

use crate::compile::blocking;
use crate::containerd::{Containerd, NamedImage, Recorded};
use crate::failure::{Failure, Kind, Outcome};
use crate::reference;

/// What was found.
pub(crate) enum Program {
    /// Guest bytes, not read yet: the store may know them.
    Wasm(Bytes),
    /// An ELF file or a script: libcontainer's.
    Native,
}

/// Where guest bytes are, and their digest.
pub(crate) struct Bytes {
    pub(crate) digest: Digest,
    source: Source,
    /// For messages: `layer sha256:...` or `/app.wasm`.
    pub(crate) name: String,
}

enum Source {
    Layer(Content),
    File(File),
    Ours(&'static [u8]),
}

impl Bytes {
    /// Of a guest that comes with the shim.
    pub(crate) fn ours(name: &str, bytes: &'static [u8]) -> Outcome<Self> {
        let digest = image::digest_of(&mut &*bytes, image::GUEST_LIMIT);
        Ok(Self {
            digest: digest.map_err(Failure::internal)?,
            source: Source::Ours(bytes),
            name: name.to_owned(),
        })
    }

    /// The bytes, in memory where nobody can change them, with the digest checked. They are read
    /// as the source has them now, so the digest may be another than [`Bytes::digest`] for a
    /// file that was written to meanwhile.
    pub(crate) fn seal(self) -> Outcome<Sealed> {
        let sealed = match self.source {
            Source::Layer(content) => {
                let mut layer = content
                    .open_layer(&self.digest)
                    .map_err(|error| of_image(&error))?;
                Sealed::verified(&mut layer, &self.digest, image::GUEST_LIMIT)
            }
            Source::Ours(mut bytes) => Sealed::copy(&mut bytes, image::GUEST_LIMIT),
            Source::File(mut file) => {
                use std::io::Seek;
                file.rewind().map_err(Failure::internal)?;
                Sealed::copy(&mut file, image::GUEST_LIMIT)
            }
        };
        sealed.map_err(|error| {
            Failure::new(
                Kind::Precondition,
                format!("{}: {:#}", self.name, anyhow::Error::new(error)),
            )
        })
    }
}

/// What the image says, before the rootfs is looked at.
pub(crate) enum FromImage {
    Layer(Bytes),
    Rootfs,
}

/// Asks containerd for the image of the container and follows it to the guest.
pub(crate) async fn from_image(
    containerd: &Containerd,
    record: &Recorded,
    plan: &Plan,
) -> Outcome<FromImage> {
    let (recorded, content) = tokio::join!(record.name(containerd), containerd.content());
    let (recorded, content) = (recorded?, Content::new(content?));
    if recorded.is_empty() && plan.image_name.is_none() {
        // Made of a plain directory (`ctr run --rootfs`).
        return Ok(FromImage::Rootfs);
    }
    let host = Platform::host();
    let named = named(containerd, record, plan).await?;
    let by_name = match &named {
        Some(image) => Some(
            image::guest_of(&content, &target(image)?, &host)
                .map_err(|error| in_image(&image.name, &error)),
        ),
        None => None,
    };
    let guest = match by_name {
        // The image's id itself says that this is the guest, whoever picked the name.
        Some(Ok(guest)) if !unbound(&guest) => guest,
        Some(decided) if plan.pod.is_none() || containerd.says_what_the_user_wrote().await? => {
            decided?
        }
        // The name is missing, or one of several that containerd picked, perhaps that of a forgery: all must mean the
        // same, or the config must say which is meant.
        _ => image::resolve(
            &content,
            None,
            &same_id(containerd, &content, recorded, &host).await?,
            &host,
        )
        .map_err(|error| in_image(plan.image_name.as_deref().unwrap_or(recorded), &error))?,
    };
    Ok(match guest {
        ImageGuest::Layer { digest, .. } => FromImage::Layer(Bytes {
            digest,
            name: format!("layer {digest}"),
            source: Source::Layer(content),
        }),
        ImageGuest::Rootfs { .. } => FromImage::Rootfs,
    })
}

/// The program that the entry point names in the rootfs, or in a volume over it.
pub(crate) async fn in_rootfs(
    root: BorrowedFd<'_>,
    guest: &GuestPlan,
    mounts: &[MountPlan],
) -> Outcome<Program> {
    let path = guest
        .env
        .iter()
        .find(|(name, _)| name == "PATH")
        .map(|(_, value)| value.as_str());
    let found = match in_volume(&guest.entry.path, mounts) {
        Some(found) => found,
        None => image::locate(root, &guest.entry.path, &guest.cwd, path),
    };
    let found = found.map_err(|error| {
        Failure::new(
            kind(error.fault()),
            format!("{:#}", anyhow::Error::new(error)),
        )
    })?;
    let Found {
        mut file,
        path,
        guest,
        ..
    } = found;
    match guest {
        Guest::Elf | Guest::Script => return Ok(Program::Native),
        // Neither for us nor for the kernel, which would say no more than "exec format error".
        Guest::Unknown | Guest::Precompiled => {
            guest
                .expect_wasm(&path)
                .map_err(|error| Failure::new(Kind::Invalid, error))?;
        }
        Guest::CoreModule | Guest::Component | Guest::Text => {}
    }
    // A large one takes its time, and may lie on a disk that does.
    blocking(move || {
        let digest = image::digest_of(&mut file, image::GUEST_LIMIT).map_err(|error| {
            Failure::new(
                Kind::Internal,
                format!("{path}: {:#}", anyhow::Error::new(error)),
            )
        })?;
        Ok(Program::Wasm(Bytes {
            digest,
            source: Source::File(file),
            name: path,
        }))
    })
    .await
}

/// A file that a volume has at this absolute path: what a ConfigMap with a script is mounted for. Links are followed
/// inside the volume. None where no volume is mounted there, or the volume has no such file.
fn in_volume(entry: &str, mounts: &[MountPlan]) -> Option<Result<Found, EntryError>> {
    // The last mount over a path is the one that shows.
    let (source, rest) = mounts.iter().rev().find_map(|mount| {
        let rest = entry.strip_prefix(mount.destination.trim_end_matches('/'))?;
        let MountSource::Bind { path, .. } = &mount.source else {
            return None;
        };
        (rest.is_empty() || rest.starts_with('/')).then_some((path, rest))
    })?;
    let (dir, name) = if rest.is_empty() {
        (
            source.parent()?,
            format!("/{}", source.file_name()?.to_str()?),
        )
    } else {
        (source.as_path(), rest.to_owned())
    };
    // Nothing else is opened: a pipe would wait for its other end.
    let dir = dir.is_dir().then(|| File::open(dir).ok()).flatten()?;
    match image::locate(dir.as_fd(), &name, "/", None) {
        Err(error) if error.fault() == Fault::NotFound => None,
        located => Some(located.map(|found| Found {
            path: entry.to_owned(),
            ..found
        })),
    }
}

/// The image by the name that the pod gave, else by containerd's record.
///
/// CRI finds images by the digest of their config and then takes the first name of that id, so
/// what is recorded may be another image's name (field notes: image-id confusion).
async fn named(
    containerd: &Containerd,
    record: &Recorded,
    plan: &Plan,
) -> Outcome<Option<NamedImage>> {
    match &plan.image_name {
        Some(written) => {
            for name in reference::candidates(written) {
                if let Some(image) = containerd.image(&name).await? {
                    return Ok(Some(image));
                }
            }
            tracing::warn!(
                annotation = IMAGE_NAME,
                image = written,
                "no image of that name"
            );
            Ok(None)
        }
        None => record.image(containerd).await.map(Option::<&_>::cloned),
    }
}

/// Every image that has the same image id as the recorded one.
async fn same_id(
    containerd: &Containerd,
    content: &Content,
    recorded: &str,
    host: &Platform,
) -> Outcome<Vec<Target>> {
    let images = containerd.images().await?;
    let id_of = |image: &NamedImage| image::image_id(content, &target(image).ok()?, host).ok();
    let Some(id) = images
        .iter()
        .find(|image| image.name == recorded)
        .and_then(id_of)
    else {
        return Err(Failure::new(
            Kind::NotFound,
            format!("image {recorded} is not known to containerd: pull it again"),
        ));
    };
    images
        .iter()
        .filter(|image| id_of(image) == Some(id))
        .map(target)
        .collect()
}

fn target(image: &NamedImage) -> Outcome<Target> {
    let digest = image.target.digest.parse().map_err(|error| {
        Failure::new(Kind::Precondition, format!("image {}: {error}", image.name))
    })?;
    Ok(Target {
        digest,
        media_type: image.target.media_type.clone(),
        size: u64::try_from(image.target.size).ok(),
    })
}

const fn unbound(guest: &ImageGuest) -> bool {
    matches!(
        guest,
        ImageGuest::Layer {
            binding: Binding::Name,
            ..
        }
    )
}

fn in_image(name: &str, error: &ImageError) -> Failure {
    Failure::new(
        kind(error.fault()),
        format!("image {name}: {}", chain(error)),
    )
}

fn of_image(error: &ImageError) -> Failure {
    Failure::new(kind(error.fault()), chain(error))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

const fn kind(fault: Fault) -> Kind {
    match fault {
        Fault::NotFound => Kind::NotFound,
        Fault::Invalid => Kind::Invalid,
        Fault::Precondition => Kind::Precondition,
        Fault::Internal => Kind::Internal,
    }
}
