use plan::Digest;

use crate::{Binding, Content, ImageError, ImageGuest, Platform, Target, guest_of};

/// Which manifest a container means, where containerd knows several for one image id.
///
/// `named` is what the name in the pod's description leads to (annotation
/// `io.kubernetes.cri.image-name`, containerd 2.0 and later), and decides. Without it, `by_id`
/// must agree: these are the targets of all images whose config has the container's image id.
///
/// # Errors
/// [`ImageError::Ambiguous`] with two digests, [`ImageError::NoTarget`] if there is none.
pub fn choose(named: Option<Target>, by_id: &[Target]) -> Result<Target, ImageError> {
    if let Some(named) = named {
        return Ok(named);
    }
    let first = by_id.first().ok_or(ImageError::NoTarget)?;
    match by_id.iter().find(|other| other.digest != first.digest) {
        Some(second) => Err(ImageError::Ambiguous {
            first: first.digest,
            second: second.digest,
        }),
        None => Ok(first.clone()),
    }
}

/// The guest of a container: [`choose`] and [`guest_of`], and where [`choose`] finds several
/// manifests, the one layer that the image's config names, if it names one.
///
/// So a manifest with a copied config harms nobody else: the pod of the other image still gets
/// the layer which that config is about.
///
/// # Errors
/// As [`choose`] and [`guest_of`].
pub fn resolve(
    content: &Content,
    named: Option<Target>,
    by_id: &[Target],
    host: &Platform,
) -> Result<ImageGuest, ImageError> {
    let ambiguous = match choose(named, by_id) {
        Ok(target) => return guest_of(content, &target, host),
        Err(error @ ImageError::Ambiguous { .. }) => error,
        Err(error) => return Err(error),
    };
    let mut agreed: Option<ImageGuest> = None;
    let mut refused = None;
    for target in by_id {
        match guest_of(content, target, host) {
            // Forged, broken or not on this node: says nothing about what the config means.
            Err(error) => {
                refused.get_or_insert(error);
            }
            // The config names no layer of this manifest; if it names one of another, that is it.
            Ok(guest) if !bound(&guest) => {}
            Ok(guest) => match &agreed {
                Some(other) if !same(other, &guest) => return Err(ambiguous),
                _ => agreed = Some(guest),
            },
        }
    }
    agreed.ok_or_else(|| refused.unwrap_or(ambiguous))
}

/// Whether the config alone says which guest it is. The layers of a filesystem were checked
/// against the config's `diff_ids` by containerd when it unpacked them.
fn bound(guest: &ImageGuest) -> bool {
    match guest {
        ImageGuest::Layer { binding, .. } => *binding != Binding::Name,
        ImageGuest::Rootfs { .. } => true,
    }
}

fn same(one: &ImageGuest, other: &ImageGuest) -> bool {
    let key = |guest: &ImageGuest| -> (Digest, Option<Digest>) {
        match guest {
            ImageGuest::Layer { digest, config, .. } => (*config, Some(*digest)),
            ImageGuest::Rootfs { config, .. } => (*config, None),
        }
    };
    key(one) == key(other)
}
