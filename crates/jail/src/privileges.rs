use std::io;

use crate::sys;

/// From `<linux/securebits.h>`: an exec as user id 0 gives nothing, and that cannot be undone.
const NO_ROOT: usize = 0b0000_0011;
/// No ambient capability can be raised, and that cannot be undone.
const NO_AMBIENT: usize = 0b1100_0000;

/// Makes what can be gained by an exec empty for good. Needs `CAP_SETPCAP`, so it comes before
/// the user is changed.
pub(crate) fn close_the_ways_back() -> io::Result<()> {
    sys::drop_bounding_set()?;
    sys::prctl(libc::PR_SET_SECUREBITS, NO_ROOT | NO_AMBIENT)?;
    Ok(())
}

/// Becomes the user, without a capability and without a way to gain one.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    sys::set_groups(groups)?;
    sys::set_gid(gid)?;
    sys::set_uid(uid)?;
    sys::drop_capabilities()?;
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    // Nobody of the same user can read or trace this process; its files in /proc are root's.
    sys::prctl(libc::PR_SET_DUMPABLE, 0)?;
    Ok(())
}

/// Dies when the thread that made this process ends. After the change of user, which undoes it.
pub(crate) fn die_with_the_parent() -> io::Result<()> {
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize)?;
    Ok(())
}

/// Whether it does already.
pub(crate) fn dies_with_the_parent() -> bool {
    let mut signal: libc::c_int = 0;
    // SAFETY: the option writes one number to the address.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) == 0 && signal != 0 }
}
