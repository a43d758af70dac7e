//! Where a program comes from: a file, standard input, an image layout on disk, an image in a registry.

mod image;
mod registry;
mod unpack;

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd as _;
use std::path::Path;

use ::image::{GUEST_LIMIT, Guest, ImageGuest};
use plan::{Digest, Entry};

pub(crate) use self::image::{BY_NAME, Facts, Image, ImageConfig};
pub(crate) use self::registry::push;
use crate::arguments::Registry;
use crate::failure::{Failure, Kind, Outcome};

/// Name of what is read from standard input.
const STDIN: &str = "-";
/// What messages call it.
const STDIN_NAME: &str = "standard input";

/// What was named, opened.
pub(crate) enum Source {
    /// A program by itself, as the one layer of an image would be.
    File { name: String, bytes: Vec<u8> },
    /// An image.
    Image(Box<Image>),
}

/// Guest bytes that an entry point leads to.
pub(crate) struct Program {
    /// For messages: the file, or `layer sha256:...`.
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

impl Source {
    /// Finds out what `name` means, and reads or fetches it.
    pub(crate) fn open(name: &str, registry: &Registry) -> Outcome<Self> {
        let path = Path::new(name);
        if name == STDIN {
            return Ok(Self::File {
                name: STDIN_NAME.to_owned(),
                bytes: read(&mut std::io::stdin().lock(), STDIN_NAME)?,
            });
        }
        if path.is_dir() {
            return image::of_layout(path).map(|image| Self::Image(Box::new(image)));
        }
        match File::open(path) {
            Ok(mut file) => Ok(Self::File {
                name: name.to_owned(),
                bytes: read(&mut file, name)?,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_path(name) => {
                image::of_registry(name, registry).map(|image| Self::Image(Box::new(image)))
            }
            Err(error) => {
                let kind = match error.kind() {
                    std::io::ErrorKind::NotFound => Kind::NotFound,
                    _ => Kind::System,
                };
                Err(Failure::at(kind, format!("cannot open {name}"), error))
            }
        }
    }

    /// What the image's config says about the process; of a file nothing.
    pub(crate) fn config(&self) -> ImageConfig {
        match self {
            Self::File { .. } => ImageConfig::default(),
            Self::Image(image) => image.config.clone(),
        }
    }

    /// The facts of an image.
    pub(crate) fn facts(&self) -> Option<&Facts> {
        match self {
            Self::File { .. } => None,
            Self::Image(image) => Some(&image.facts),
        }
    }

    /// The image's files, if it has some.
    pub(crate) fn files(&self) -> Option<&Path> {
        match self {
            Self::File { .. } => None,
            Self::Image(image) => image.files.as_ref().map(tempfile::TempDir::path),
        }
    }

    /// What runs where nobody says anything else, and its arguments. A program by itself, and an image that is a layer,
    /// always have a name.
    pub(crate) fn words(&self) -> (Vec<String>, Vec<String>) {
        let config = self.config();
        match self {
            Self::File { name, .. } => {
                let file = Path::new(name).file_name().and_then(|name| name.to_str());
                let file = file.filter(|_| name != STDIN_NAME).unwrap_or_default();
                (vec![format!("/{file}")], Vec::new())
            }
            Self::Image(image) if config.entrypoint.is_empty() && image.files.is_none() => {
                (vec!["/".to_owned()], config.cmd)
            }
            Self::Image(_) => (config.entrypoint, config.cmd),
        }
    }

    /// Follows an entry point to guest bytes.
    pub(crate) fn program(
        &self,
        entry: &Entry,
        cwd: &str,
        env: &[(String, String)],
    ) -> Outcome<Program> {
        match self {
            Self::File { name, bytes } => Program::new(name.clone(), bytes.clone()),
            Self::Image(image) => match &image.guest {
                ImageGuest::Layer { digest, .. } => {
                    let name = format!("layer {digest}");
                    let path = image.content.path(digest);
                    let mut file = File::open(&path).map_err(|error| {
                        Failure::at(Kind::System, format!("cannot open {name}"), error)
                    })?;
                    let program = Program::new(name.clone(), read(&mut file, &name)?)?;
                    if program.digest != *digest {
                        return Err(Failure::new(
                            Kind::Wrong,
                            format!(
                                "{name} has the digest {}: get the image again",
                                program.digest
                            ),
                        ));
                    }
                    Ok(program)
                }
                ImageGuest::Rootfs { .. } => in_files(image, entry, cwd, env),
            },
        }
    }
}

impl Program {
    fn new(name: String, bytes: Vec<u8>) -> Outcome<Self> {
        let digest = ::image::digest_of(&mut bytes.as_slice(), GUEST_LIMIT)
            .map_err(|error| Failure::at(Kind::Refused, &name, error))?;
        Ok(Self {
            name,
            digest,
            bytes,
        })
    }
}

/// A program among the image's files.
fn in_files(image: &Image, entry: &Entry, cwd: &str, env: &[(String, String)]) -> Outcome<Program> {
    let files = image
        .files
        .as_ref()
        .ok_or_else(|| Failure::new(Kind::System, "the image's files were not unpacked"))?;
    let root = File::open(files.path())
        .map_err(|error| Failure::at(Kind::System, "cannot open the image's files", error))?;
    let path = env.iter().find(|(name, _)| name == "PATH");
    let path = path.map(|(_, value)| value.as_str());
    let found = ::image::locate(root.as_fd(), &entry.path, cwd, path).map_err(|error| {
        let kind = match error.fault() {
            ::image::Fault::NotFound => Kind::NotFound,
            ::image::Fault::Invalid => Kind::Refused,
            ::image::Fault::Precondition | ::image::Fault::Internal => Kind::System,
        };
        Failure::of(kind, error)
    })?;
    if matches!(found.guest, Guest::Elf | Guest::Script) {
        return Err(Failure::new(
            Kind::Refused,
            format!(
                "{} is a native program: in a pod it runs as a native container, here it does not",
                found.path
            ),
        ));
    }
    found
        .guest
        .expect_wasm(&found.path)
        .map_err(|error| Failure::of(Kind::Refused, error))?;
    let mut file = found.file;
    let bytes = read(&mut file, &found.path)?;
    Program::new(found.path, bytes)
}

/// Reads a program to its end, but no more than a guest may have.
fn read(source: &mut impl Read, name: &str) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    source
        .take(GUEST_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::at(Kind::System, format!("cannot read {name}"), error))?;
    if bytes.len() as u64 > GUEST_LIMIT {
        return Err(Failure::new(
            Kind::Refused,
            format!("{name} has more than {GUEST_LIMIT} bytes, the most that a guest may have"),
        ));
    }
    Ok(bytes)
}

/// Whether a name that leads to no file was meant as one. A name in a registry has a tag, a digest or a directory.
fn is_path(name: &str) -> bool {
    let looks = ["/", "./", "../", "~"];
    let ends = [".wasm", ".wat", ".cwasm"];
    looks.iter().any(|start| name.starts_with(start))
        || ends.iter().any(|end| name.ends_with(end))
        || !name.contains(['/', ':', '@'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_may_be_an_image() {
        for (name, path) in [
            ("hello.wasm", true),
            ("./a/b:c", true),
            ("/a/b", true),
            ("hello", true),
            ("me/hello", false),
            ("hello:v1", false),
            ("registry.example/hello:v1", false),
            ("127.0.0.1:5000/a/b", false),
        ] {
            assert_eq!(is_path(name), path, "{name}");
        }
    }
}
