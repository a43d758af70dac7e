//! The debug guest, which every wasm container can execute by its name however empty its image is.

use plan::GuestPlan;

/// The command that means it, in every wasm container.
pub(crate) const NAME: &str = "sampan";

/// The guest itself, where this build has one.
pub(crate) const GUEST: Option<&[u8]> = None;

/// A guest that comes with the shim, for one request.
pub(crate) struct Debug {
    pub(crate) bytes: &'static [u8],
    /// Its arguments, the first of them its name.
    pub(crate) args: Vec<String>,
}

/// What a request with these arguments executes beside a guest with this plan; none where this build has no debug guest.
pub(crate) fn guest(_beside: &GuestPlan, args: &[String]) -> Option<Debug> {
    GUEST.map(|bytes| Debug {
        bytes,
        args: args.to_vec(),
    })
}
