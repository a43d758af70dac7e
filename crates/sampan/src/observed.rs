//! Which guest of this node is meant by a name.

use std::path::Path;

use crate::arguments::Observed;
use crate::failure::{Failure, Kind, Outcome};
use crate::node;
use crate::top::guests::{self, Guest, start_time};

/// A guest's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// The guest, as it is called in what is shown.
    pub(crate) name: String,
    pub(crate) pid: i32,
    /// By which it is known from a later one with the same number.
    start_time: Option<u64>,
}

impl Process {
    pub(crate) fn find(observed: &Observed) -> Outcome<Self> {
        let config = node::configuration(observed.node_config.as_deref())?;
        let root = Path::new("/");
        let known = guests::find(root, &config.run).map_err(|error| {
            Failure::at(
                Kind::System,
                format!("cannot list the containers in {}", config.run.display()),
                error,
            )
        })?;
        let (name, pid) = choose(&known, &observed.name, observed.container.as_deref())?;
        Ok(Self {
            name,
            pid,
            start_time: start_time(root, pid),
        })
    }

    #[cfg(test)]
    pub(crate) fn named(name: &str, pid: i32) -> Self {
        Self {
            name: name.to_owned(),
            pid,
            start_time: None,
        }
    }

    pub(crate) fn lives(&self) -> bool {
        self.start_time.is_some() && self.start_time == start_time(Path::new("/"), self.pid)
    }
}

fn choose(known: &[Guest], name: &str, container: Option<&str>) -> Outcome<(String, i32)> {
    let named = |guest: &&Guest| {
        let pod = guest.pod.as_deref();
        guest.id == name
            || pod == Some(name)
            || name.split_once('/').is_some_and(|(namespace, of)| {
                guest.namespace.as_deref() == Some(namespace) && pod == Some(of)
            })
    };
    let all: Vec<_> = known.iter().filter(named).collect();
    let found: Vec<_> = all
        .iter()
        .filter(|guest| !guest.is_holder() && guest.kind != "native")
        .filter(|guest| container.is_none_or(|name| guest.container.as_deref() == Some(name)))
        .collect();
    match (found.as_slice(), name.parse::<i32>()) {
        ([guest], _) => Ok((called(guest), guest.pid)),
        ([], Ok(pid)) if pid > 0 && all.is_empty() && container.is_none() => {
            Ok((format!("process {pid}"), pid))
        }
        ([], _) if !all.is_empty() => Err(Failure::new(
            Kind::NotFound,
            match container {
                Some(container) => format!("{name} has no Wasm container `{container}`"),
                None => format!("{name} has no Wasm container: it is native, or a pod's own"),
            },
        )),
        ([], _) => Err(Failure::new(
            Kind::NotFound,
            format!("no guest of this node is called {name}: `sampan top --once` lists them"),
        )),
        (several, _) => {
            let names: Vec<_> = several.iter().map(|guest| called(guest)).collect();
            Err(Failure::new(
                Kind::Wrong,
                format!(
                    "{name} is the name of several: {}; say NAMESPACE/POD, --container or the id",
                    names.join(", ")
                ),
            ))
        }
    }
}

fn called(guest: &Guest) -> String {
    match guest.names() {
        (_, pod, id) if pod == "-" => id,
        (namespace, pod, container) => format!("{namespace}/{pod}/{container}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(id: &str, pod: Option<(&str, &str, &str)>, kind: &'static str, pid: i32) -> Guest {
        Guest {
            containerd_namespace: "k8s.io".to_owned(),
            id: id.to_owned(),
            namespace: pod.map(|(namespace, _, _)| namespace.to_owned()),
            pod: pod.map(|(_, pod, _)| pod.to_owned()),
            container: pod.map(|(_, _, container)| container.to_owned()),
            kind,
            pid,
        }
    }

    #[test]
    fn a_guest_is_found_by_what_people_know_of_it() {
        let known = [
            guest("a1", Some(("shop", "web", "app")), "wasm", 11),
            guest("a2", Some(("shop", "web", "side")), "wasm", 12),
            guest("a3", Some(("shop", "web", "proxy")), "native", 13),
            guest("a0", Some(("shop", "web", "")), "pod", 10),
            guest("b1", Some(("test", "one", "app")), "wasm", 21),
            guest("c1", Some(("prod", "one", "app")), "wasm", 31),
            guest("77", None, "wasm", 41),
        ];
        let of = |name, container| {
            choose(&known, name, container)
                .map(|(_, pid)| pid)
                .map_err(|failure| (failure.code(false), failure.to_string()))
        };
        assert_eq!(of("a1", None), Ok(11));
        assert_eq!(of("web", Some("side")), Ok(12));
        assert_eq!(of("test/one", None), Ok(21));
        // A number is an id before it is a process.
        assert_eq!((of("77", None), of("78", None)), (Ok(41), Ok(78)));
        for (name, container, code, says) in [
            ("web", None, 2, "shop/web/app, shop/web/side; say"),
            ("one", None, 2, "several"),
            ("web", Some("proxy"), 2, "no Wasm container `proxy`"),
            ("a0", None, 2, "a pod's own"),
            ("nobody", None, 2, "no guest of this node is called nobody"),
            ("-5", None, 2, "no guest of this node"),
        ] {
            let (found, text) = of(name, container).expect_err(name);
            assert!(found == code && text.contains(says), "{name}: {text}");
        }
    }
}
