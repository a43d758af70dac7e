use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, renameat, unlinkat};

use crate::key::{TEMPORARY, file_name};
use crate::{Inner, StoreError, directory};

const DIRECTORY: &str = "notes";

/// Longest note, in bytes.
const LIMIT: usize = 4096;

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn read(store: &Inner, name: &str) -> Result<Option<String>, StoreError> {
    let name = file_name(name)?;
    let Some(directory) = store.root.existing(DIRECTORY)? else {
        return Ok(None);
    };
    let path = directory.path().join(name);
    let file = match directory.open_file(name, OFlags::RDONLY, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path, error)),
    };
    let status = fstat(&file).map_err(|errno| StoreError::io("examine", &path, errno))?;
    directory::check(&status, FileType::RegularFile, &path, directory.owner())?;
    let mut text = String::new();
    file.take(LIMIT as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|source| StoreError::io("read", path, source))?;
    within(name, &text)?;
    Ok(Some(text))
}

pub(crate) fn write(store: &Inner, name: &str, text: &str) -> Result<(), StoreError> {
    let name = file_name(name)?;
    within(name, text)?;
    let directory = store.root.subdirectory(DIRECTORY)?;
    let path = directory.path().join(name);
    // A name of its own for each writer: two would mix in one file. Process and thread tell
    // them apart, and a leftover of a dead one is written over by the next of that number.
    let temporary = format!(
        ".{name}.{}.{}{TEMPORARY}",
        std::process::id(),
        rustix::thread::gettid().as_raw_nonzero()
    );
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY;
    let failed = |source: io::Error| StoreError::io("write", &path, source);
    let mut file = directory
        .open_file(&temporary, flags, Mode::from_raw_mode(0o600))
        .map(File::from)
        .map_err(failed)?;
    let renamed = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| Ok(renameat(&directory, &temporary, &directory, name)?));
    renamed.map_err(|source| {
        let _ = unlinkat(&directory, &temporary, AtFlags::empty());
        failed(source)
    })
}

/// Removes what writers that died left behind; a living one is done within the hour.
pub(crate) fn sweep(store: &Inner) -> Result<usize, StoreError> {
    let Some(directory) = store.root.existing(DIRECTORY)? else {
        return Ok(0);
    };
    let mut removed = 0;
    for name in directory.names()? {
        let ours = name.starts_with('.') && name.ends_with(TEMPORARY);
        let old = |file: File| {
            let age = file
                .metadata()
                .and_then(|m| m.modified())
                .map(|t| t.elapsed());
            matches!(age, Ok(Ok(age)) if age > HOUR)
        };
        if ours
            && directory
                .open_file(&name, OFlags::RDONLY, Mode::empty())
                .is_ok_and(|fd| old(fd.into()))
            && unlinkat(&directory, &name, AtFlags::empty()).is_ok()
        {
            removed += 1;
        }
    }
    Ok(removed)
}

fn within(name: &str, text: &str) -> Result<(), StoreError> {
    if text.len() > LIMIT {
        return Err(StoreError::Note {
            name: name.to_owned(),
            size: text.len(),
        });
    }
    Ok(())
}
