//! Files that are there completely or not at all, and that can be put back as they were.
use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Everything by which a file is the same as another, but for its inode.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Facts {
    /// sha256 of the content, in hexadecimal digits.
    pub digest: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes (SELinux's label, access control lists), values in hexadecimal digits.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// When the content was last changed.
    pub modified: SystemTime,
}

impl Facts {
    /// Reads them; `None` where there is no file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of(path: &Path) -> Result<Option<Self>> {
        let read = || -> io::Result<Self> {
            let meta = fs::metadata(path)?;
            Ok(Self {
                digest: digest(&fs::read(path)?),
                mode: meta.permissions().mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
                attributes: attributes(path)?,
                modified: meta.modified()?,
            })
        };
        found(read()).with_context(|| format!("read {}", path.display()))
    }
}

/// sha256 in hexadecimal digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The content; `None` where there is no file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    found(fs::read(path)).with_context(|| format!("read {}", path.display()))
}

/// What was asked for, if it is there.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Writes a file completely or not at all. Mode, owner and extended attributes are those of the file that it replaces,
/// else 0644, root and none. `between` is called when all is written and nothing is visible.
///
/// # Errors
/// What could not be done; the file is as before then, but for what `between` has done.
pub fn write(path: &Path, bytes: &[u8], between: impl FnOnce()) -> Result<()> {
    write_as(path, bytes, None, between)
}

/// As [`write`], for a program: mode 0755, root and nothing of a file that it replaces.
///
/// # Errors
/// As [`write`].
pub fn write_program(path: &Path, bytes: &[u8]) -> Result<()> {
    write_as(path, bytes, Some(0o755), || ())
}

fn write_as(path: &Path, bytes: &[u8], mode: Option<u32>, between: impl FnOnce()) -> Result<()> {
    let temporary = beside(path, NEW);
    let result = (|| -> Result<()> {
        remove(&temporary)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .with_context(|| format!("create {}", temporary.display()))?;
        file.write_all(bytes)
            .with_context(|| format!("write {} bytes to {}", bytes.len(), temporary.display()))?;
        let old = found(fs::metadata(path))?.filter(|_| mode.is_none());
        let (mode, owner) = match old {
            Some(old) => {
                for (name, value) in attributes(path)? {
                    let value = hex::decode(value).context("decode an extended attribute")?;
                    rustix::fs::setxattr(
                        &temporary,
                        name.as_str(),
                        &value,
                        rustix::fs::XattrFlags::empty(),
                    )
                    .with_context(|| format!("set {name} of {}", temporary.display()))?;
                }
                (
                    old.permissions().mode() & 0o7777,
                    Some((old.uid(), old.gid())),
                )
            }
            None => (mode.unwrap_or(0o644), None),
        };
        if let Some((uid, gid)) = owner {
            chown(&temporary, Some(uid), Some(gid))
                .with_context(|| format!("set the owner of {}", temporary.display()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))
            .with_context(|| format!("set the mode of {}", temporary.display()))?;
        file.sync_all()
            .with_context(|| format!("write {} to the disk", temporary.display()))?;
        between();
        fs::rename(&temporary, path)
            .with_context(|| format!("rename {} to {}", temporary.display(), path.display()))?;
        sync_parent(path)
    })();
    if result.is_err() {
        // The reason of the failure matters more than what this one says.
        drop(remove(&temporary));
    }
    result
}

/// Keeps the file that is there under a second name, so that it can be put back by a rename: the same inode, even on a
/// full disk. Nothing there is nothing to keep.
///
/// # Errors
/// When the link cannot be made.
pub fn keep(path: &Path) -> Result<()> {
    let kept = beside(path, BEFORE);
    remove(&kept)?;
    if found(fs::symlink_metadata(path))?.is_some() {
        fs::hard_link(path, &kept)
            .with_context(|| format!("link {} to {}", path.display(), kept.display()))?;
    }
    sync_parent(path)
}

/// Puts back what [`keep`] has kept: the file, or that there was none.
///
/// # Errors
/// When there is nothing kept though there should be, or it cannot be renamed.
pub fn put_back(path: &Path, before: Option<&Facts>) -> Result<()> {
    let kept = beside(path, BEFORE);
    remove(&beside(path, NEW))?;
    match before {
        // Already back, or never changed.
        Some(before) if Facts::of(path)?.as_ref() == Some(before) => {}
        Some(before) => {
            ensure!(
                Facts::of(&kept)?.as_ref() == Some(before),
                "{} is not the file that was kept: put {} back by hand",
                kept.display(),
                path.display()
            );
            fs::rename(&kept, path)
                .with_context(|| format!("rename {} to {}", kept.display(), path.display()))?;
        }
        None => remove(path)?,
    }
    // A rename onto another name of the same file leaves both.
    remove(&kept)?;
    // Where nothing was written yet, its directory may not be there either.
    if path.parent().is_some_and(Path::exists) {
        sync_parent(path)?;
    }
    Ok(())
}

/// Forgets what [`keep`] has kept, and what an interrupted [`write`] has left.
///
/// # Errors
/// When something cannot be removed.
pub fn forget(path: &Path) -> Result<()> {
    remove(&beside(path, BEFORE))?;
    remove(&beside(path, NEW))?;
    if path.parent().is_some_and(Path::exists) {
        sync_parent(path)?;
    }
    Ok(())
}

/// Whether a name is taken. Asked before it is removed: on a read-only file system removing what is not there is an
/// error of its own.
fn there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Removes a file; that there is none is fine.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    if !there(path) {
        return Ok(());
    }
    found(fs::remove_file(path))
        .map(drop)
        .with_context(|| format!("remove {}", path.display()))
}

/// Removes a directory with all in it; that there is none is fine.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_all(path: &Path) -> Result<()> {
    if !there(path) {
        return Ok(());
    }
    found(fs::remove_dir_all(path))
        .map(drop)
        .with_context(|| format!("remove {}", path.display()))
}

/// Removes a directory if it is empty; whether it was there and is gone.
///
/// # Errors
/// When it cannot be removed for another reason than what is in it.
pub fn remove_empty(path: &Path) -> Result<bool> {
    if !there(path) {
        return Ok(false);
    }
    match found(fs::remove_dir(path)) {
        Ok(removed) => Ok(removed.is_some()),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}

/// Makes a directory and those above it; returns those that were not there, the highest first.
///
/// # Errors
/// When one cannot be made.
pub fn make(path: &Path) -> Result<Vec<PathBuf>> {
    let missing = missing(path);
    for directory in &missing {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("create {}", directory.display()));
            }
            _ => sync_parent(directory)?,
        }
    }
    Ok(missing)
}

/// Keeps everyone but the owner out of a directory.
///
/// # Errors
/// When its mode cannot be set.
pub fn make_private(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("set the mode of {}", path.display()))
}

/// Which of a directory and those above it are not there, the highest first.
#[must_use]
pub fn missing(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path
        .ancestors()
        .take_while(|directory| !directory.exists())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    missing
}

/// Points a link somewhere, by a rename.
///
/// # Errors
/// When it cannot be made.
pub fn point(link: &Path, target: &Path) -> Result<()> {
    let temporary = beside(link, NEW);
    remove(&temporary)?;
    std::os::unix::fs::symlink(target, &temporary)
        .with_context(|| format!("create {}", temporary.display()))?;
    fs::rename(&temporary, link)
        .with_context(|| format!("rename {} to {}", temporary.display(), link.display()))?;
    sync_parent(link)
}

/// Where a link points to; `None` where there is none.
///
/// # Errors
/// When it cannot be read.
pub fn pointed(link: &Path) -> Result<Option<PathBuf>> {
    found(fs::read_link(link)).with_context(|| format!("read the link {}", link.display()))
}

/// Sets when the content was last changed.
///
/// # Errors
/// When it cannot be set.
pub fn set_modified(path: &Path, modified: SystemTime) -> Result<()> {
    File::open(path)
        .and_then(|file| file.set_times(FileTimes::new().set_modified(modified)))
        .with_context(|| format!("set the time of {}", path.display()))
}

/// Writes to the disk which names a directory holds.
///
/// # Errors
/// When the disk does not take it.
pub fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("write {} to the disk", parent.display()))
}

/// Endings of names that no glob of a configuration directory (`*.toml`) takes.
const NEW: &str = "sampan-new";
const BEFORE: &str = "sampan-before";

fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{ending}"))
}

fn attributes(path: &Path) -> io::Result<BTreeMap<String, String>> {
    use rustix::fs::{getxattr, listxattr};
    let mut names = vec![0; 65536];
    let length = match listxattr(path, &mut names) {
        Ok(length) => length,
        // A file system without them.
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut all = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0) {
        if name.is_empty() {
            continue;
        }
        let name = String::from_utf8_lossy(name).into_owned();
        let mut value = vec![0; 65536];
        let length = getxattr(path, name.as_str(), &mut value)?;
        all.insert(name, hex::encode(&value[..length]));
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
