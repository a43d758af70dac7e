use serde_json::{Map, Value, json};

use super::{Builder, Handler, PAUSE, Version};
use crate::scratch::Scratch;
use crate::{RUNC, Tools};

/// containerd's configuration: version 3 for 2.x, version 2 for 1.7.
pub(super) fn render(builder: &Builder, tools: &Tools, scratch: &Scratch) -> Value {
    let dir = scratch.dir();
    let mut config = json!({
        "version": match builder.version { Version::V2 => 3, Version::V1_7 => 2 },
        "root": dir.join("root"),
        "state": dir.join("state"),
        "grpc": { "address": scratch.socket() },
        "ttrpc": { "address": dir.join("c.sock.ttrpc") },
        "debug": { "level": "debug" },
        "plugins": {
            "io.containerd.internal.v1.opt": { "path": dir.join("opt") },
            "io.containerd.nri.v1.nri": { "disable": true },
        },
    });
    if builder.without_sampan && builder.version == Version::V2 {
        config["imports"] = json!([dir.join("conf.d/*.toml")]);
    }
    if builder.without_cri {
        config["disabled_plugins"] = match builder.version {
            Version::V2 => {
                json!([
                    "io.containerd.grpc.v1.cri",
                    "io.containerd.cri.v1.images",
                    "io.containerd.cri.v1.runtime"
                ])
            }
            Version::V1_7 => json!(["io.containerd.grpc.v1.cri"]),
        };
        return config;
    }

    let mut runtimes = Map::new();
    let standard = [
        Handler::new("runc", RUNC)
            .option("BinaryName", tools.runc.to_string_lossy().into_owned())
            .option("SystemdCgroup", false),
        Handler::new("sampan", crate::runtime()).option("SystemdCgroup", false),
    ];
    let there = if builder.without_sampan { 1 } else { 2 };
    for handler in standard[..there].iter().chain(&builder.handlers) {
        let mut value = json!({
            "runtime_type": handler.runtime_type,
            "pod_annotations": ["sampan.dev/*"],
            "container_annotations": ["sampan.dev/*"],
        });
        if let Some(sandboxer) = &handler.sandboxer {
            value["sandboxer"] = json!(sandboxer);
        }
        // An empty table is passed on as options too.
        if handler.options != json!({}) {
            value["options"] = handler.options.clone();
        }
        runtimes.insert(handler.name.clone(), value);
    }
    let runtime = json!({
        "disable_apparmor": true,
        // Pods ask for -998, which needs CAP_SYS_RESOURCE.
        "restrict_oom_score_adj": true,
        // Else they would lie in /var/run/netns, which all share.
        "netns_mounts_under_state_dir": true,
    });
    let containerd = json!({ "default_runtime_name": "runc", "runtimes": runtimes });
    let registry = json!({ "config_path": dir.join("certs.d") });
    let plugins = &mut config["plugins"];
    match builder.version {
        Version::V2 => {
            let mut runtime = runtime;
            runtime["cni"] = json!({ "bin_dirs": [tools.cni], "conf_dir": dir.join("cni") });
            runtime["containerd"] = containerd;
            plugins["io.containerd.cri.v1.runtime"] = runtime;
            plugins["io.containerd.cri.v1.images"] = json!({
                "snapshotter": "overlayfs",
                "discard_unpacked_layers": builder.discard_unpacked_layers,
                "use_local_image_pull": builder.use_local_image_pull,
                "pinned_images": { "sandbox": PAUSE },
                "registry": registry,
            });
        }
        Version::V1_7 => {
            let mut cri = runtime;
            cri["sandbox_image"] = json!(PAUSE);
            cri["cni"] = json!({ "bin_dir": tools.cni, "conf_dir": dir.join("cni") });
            cri["containerd"] = containerd;
            cri["containerd"]["discard_unpacked_layers"] = json!(builder.discard_unpacked_layers);
            cri["registry"] = registry;
            plugins["io.containerd.grpc.v1.cri"] = cri;
        }
    }
    config
}
