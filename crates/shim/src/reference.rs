//! From the image name that a user wrote to the names under which containerd may keep it.

/// The names to look for, best first: the name itself, then its full form (the reference
/// grammar of the CNCF distribution project: `docker.io`, `library/` and `latest` may be left
/// out), then, where a tag stands beside a digest, the digest alone, which is what counts.
pub(crate) fn candidates(written: &str) -> Vec<String> {
    let full = full(written);
    let by_digest = full
        .split_once('@')
        .map(|(name, digest)| format!("{}@{digest}", without_tag(name)));
    let mut names = vec![written.to_owned()];
    for name in by_digest.into_iter().chain([full]) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn full(written: &str) -> String {
    let (name, digest) = match written.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (written, None),
    };
    let named_host = name.split_once('/').is_some_and(|(host, _)| {
        host == "localhost" || host.contains(['.', ':']) || host.chars().any(char::is_uppercase)
    });
    let name = match (named_host, name.contains('/')) {
        (true, _) => name.to_owned(),
        (false, true) => format!("docker.io/{name}"),
        (false, false) => format!("docker.io/library/{name}"),
    };
    match digest {
        Some(digest) => format!("{name}@{digest}"),
        None if without_tag(&name) == name => format!("{name}:latest"),
        None => name,
    }
}

/// A colon after the last slash is a tag, one before it belongs to a port.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        for (written, full) in [
            ("app", "docker.io/library/app:latest"),
            ("me/app:v1", "docker.io/me/app:v1"),
            ("localhost/app", "localhost/app:latest"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
            ("ghcr.io/me/app:v1", "ghcr.io/me/app:v1"),
            ("app@sha256:00", "docker.io/library/app@sha256:00"),
        ] {
            assert!(
                candidates(written).contains(&full.to_owned()),
                "{written}: {:?}",
                candidates(written)
            );
        }
    }

    #[test]
    fn the_name_as_written_comes_first_and_a_digest_beats_a_tag() {
        assert_eq!(
            candidates("r.io:5000/a/b:v1@sha256:00"),
            ["r.io:5000/a/b:v1@sha256:00", "r.io:5000/a/b@sha256:00"]
        );
        assert_eq!(candidates("r.io/a:v1"), ["r.io/a:v1"]);
    }
}
