//! Which directories the host gave.

use crate::Answer;

/// Guest paths of the preopened directories, in the host's order, one a line.
pub(crate) fn list() -> Answer {
    let names = names();
    Ok((!names.is_empty()).then(|| names.join("\n")))
}

/// The working directory that the host names; WASI 0.1 has no such question.
pub(crate) fn initial_cwd() -> Answer {
    #[cfg(target_env = "p2")]
    return Ok(wasip2::cli::environment::initial_cwd());
    #[cfg(target_env = "p1")]
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(target_env = "p2")]
fn names() -> Vec<String> {
    wasip2::filesystem::preopens::get_directories()
        .into_iter()
        .map(|(_, path)| path)
        .collect()
}

#[cfg(target_env = "p1")]
fn names() -> Vec<String> {
    /// Where the preopened descriptors begin: 0 to 2 are the standard streams.
    const FIRST: wasip1::Fd = 3;
    (FIRST..).map_while(name).collect()
}

#[cfg(target_env = "p1")]
fn name(descriptor: wasip1::Fd) -> Option<String> {
    // SAFETY: the call writes only into the value it returns; an unknown number is an error.
    let prestat = unsafe { wasip1::fd_prestat_get(descriptor) }.ok()?;
    if prestat.tag != wasip1::PREOPENTYPE_DIR.raw() {
        return None;
    }
    // SAFETY: the tag, checked above, says that `dir` is the field in use.
    let length = unsafe { prestat.u.dir.pr_name_len };
    let mut bytes = vec![0; length];
    // SAFETY: the buffer is ours alone and has exactly the length that is given.
    unsafe { wasip1::fd_prestat_dir_name(descriptor, bytes.as_mut_ptr(), length) }.ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
