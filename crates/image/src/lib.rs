//! Which guest bytes belong to a container: the image that the pod named leads through manifest
//! and config to one wasm layer, or to a file in the rootfs.
//!
//! Everything read here was written by strangers. Manifest and config are bounded in size and
//! verified against their digest on every read; a layer is verified while it is copied to where
//! it is compiled from ([`Sealed`]); no name from an image is ever joined to a path of the host.
//!
//! ```text
//! name ─ containerd ─▶ Target ─ choose ─▶ guest_of ─┬─▶ Layer  ─ Content::open_layer ─┐
//!                                                   └─▶ Rootfs ─ locate ──────────────┴─▶ Sealed
//! ```
#![forbid(unsafe_code)]

mod choice;
mod content;
mod document;
mod error;
mod guest;
mod media;
mod platform;
mod rootfs;
mod sealed;
mod sniff;

pub use choice::{choose, resolve};
pub use content::{Content, DOCUMENT_LIMIT, Target};
pub use error::{Fault, ImageError};
pub use guest::{Binding, ImageGuest, guest_of, image_id};
pub use platform::Platform;
pub use rootfs::{EntryError, Found, locate};
pub use sealed::{GUEST_LIMIT, SealError, Sealed, digest_of};
pub use sniff::{Guest, NotWasm, sniff};

#[cfg(test)]
mod tests;
