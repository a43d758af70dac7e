//! The walk from a name to a guest, over content stores made of files. Each test is an image as
//! the field has it, or as an attacker would send it.

use std::fs;
use std::path::PathBuf;

use plan::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const WASM: &str = "application/wasm";
const COMPONENT: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
const CONTENT: &str = "application/vnd.wasm.content.layer.v1+wasm";
const MODULE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

struct Node {
    _directory: TempDir,
    content: Content,
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::new(Sha256::digest(bytes).into())
}

fn host() -> Platform {
    platform("linux", "amd64")
}

fn platform(os: &str, architecture: &str) -> Platform {
    Platform {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
    }
}

impl Node {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        fs::create_dir_all(directory.path().join("blobs/sha256")).expect("directories");
        Self {
            content: Content::new(directory.path()),
            _directory: directory,
        }
    }

    fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = digest(bytes);
        fs::write(self.content.path(&digest), bytes).expect("written");
        digest
    }

    /// A descriptor of bytes that are on the node.
    fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        describe(media_type, bytes, &self.blob(bytes))
    }

    fn json(&self, media_type: &str, value: &Value) -> Value {
        self.put(media_type, value.to_string().as_bytes())
    }

    fn manifest(&self, config: &Value, layers: &[Value]) -> Value {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        self.json(MANIFEST, &manifest)
    }

    /// A CNCF artifact whose config is about the layers it has.
    fn artifact(&self, layers: &[Value]) -> Value {
        let digests: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
        let config = json!({"architecture": "wasm", "os": "wasip2", "layerDigests": digests});
        self.manifest(&self.json(WASM_CONFIG, &config), layers)
    }

    fn guest(&self, descriptor: &Value) -> Result<ImageGuest, ImageError> {
        guest_of(&self.content, &target(descriptor), &host())
    }

    #[track_caller]
    fn refused(&self, descriptor: &Value, words: &[&str]) -> ImageError {
        let error = self.guest(descriptor).expect_err("refused");
        says(&error, words);
        error
    }
}

#[track_caller]
fn says(error: &ImageError, words: &[&str]) {
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 4000, "{text}");
    for word in words {
        assert!(text.contains(word), "`{text}` lacks `{word}`");
    }
}

fn describe(media_type: &str, bytes: &[u8], digest: &Digest) -> Value {
    json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
}

fn target(descriptor: &Value) -> Target {
    Target {
        digest: text(&descriptor["digest"]).parse().expect("a digest"),
        media_type: text(&descriptor["mediaType"]).to_owned(),
        size: descriptor["size"].as_u64(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn with(mut descriptor: Value, field: &str, value: Value) -> Value {
    descriptor[field] = value;
    descriptor
}

#[track_caller]
fn assert_layer(guest: Result<ImageGuest, ImageError>, bytes: &[u8], expected: Binding) {
    match guest.expect("a guest") {
        ImageGuest::Layer {
            digest: found,
            size,
            path,
            binding,
            ..
        } => {
            assert_eq!(found, digest(bytes));
            assert_eq!(size, bytes.len() as u64);
            assert_eq!(fs::read(path).expect("readable"), bytes);
            assert_eq!(binding, expected);
        }
        rootfs @ ImageGuest::Rootfs { .. } => panic!("{rootfs:?}"),
    }
}

#[test]
fn a_cncf_artifact_is_bound_by_its_config() {
    let node = Node::new();
    let image = node.artifact(&[node.put(WASM, b"wasm")]);
    assert_layer(node.guest(&image), b"wasm", Binding::LayerDigests);
}

#[test]
fn every_layer_type_of_the_field_is_taken() {
    let node = Node::new();
    for (number, layer_type) in [
        WASM,
        COMPONENT,
        CONTENT,
        MODULE,
        "Application/WASM",
        "application/wasm; x=y",
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = format!("wasm {number}");
        let layer = node.put(layer_type, bytes.as_bytes());
        // With a config that says nothing, as `oras push` and `wasm-to-oci` make it.
        for (config_type, config) in [
            (EMPTY_CONFIG, json!({})),
            (OCI_CONFIG, json!({"os": "wasi", "architecture": "wasm"})),
            (
                OCI_CONFIG,
                json!({"rootfs": {"type": "layers", "diff_ids": null}}),
            ),
            ("application/vnd.unknown.config.v1+json", json!([1, 2])),
        ] {
            let config = node.json(config_type, &config);
            let image = node.manifest(&config, std::slice::from_ref(&layer));
            assert_layer(node.guest(&image), bytes.as_bytes(), Binding::Name);
        }
    }
}

#[test]
fn an_oci_config_binds_by_diff_ids() {
    let node = Node::new();
    let layer = node.put(COMPONENT, b"wasm");
    let config = |id: &Value| {
        let config = json!({"architecture": "wasm", "os": "wasi", "rootfs": {"diff_ids": [id]}});
        node.json(OCI_CONFIG, &config)
    };
    let image = node.manifest(&config(&layer["digest"]), std::slice::from_ref(&layer));
    assert_layer(node.guest(&image), b"wasm", Binding::DiffIds);
    // Some tools put a number of their own there, only to make the config unique.
    let other = json!(digest(b"unique").to_string());
    let image = node.manifest(&config(&other), &[layer]);
    assert_layer(node.guest(&image), b"wasm", Binding::Name);
}

#[test]
fn the_empty_config_need_not_be_on_the_node() {
    let node = Node::new();
    let config = describe(EMPTY_CONFIG, b"{}", &digest(b"{}"));
    let image = node.manifest(&config, &[node.put(CONTENT, b"wasm")]);
    assert_layer(node.guest(&image), b"wasm", Binding::Name);
}

#[test]
fn a_filesystem_is_a_rootfs() {
    let node = Node::new();
    for (os, architecture) in [("linux", "amd64"), ("linux", "arm64"), ("wasi", "wasm")] {
        let config = json!({"os": os, "architecture": architecture, "rootfs": {"diff_ids": ["x"]}});
        let docker = "application/vnd.docker.container.image.v1+json";
        for (config_type, layer_type) in [
            (OCI_CONFIG, TAR),
            (docker, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        ] {
            let config = node.json(config_type, &config);
            let image = node.manifest(&config, &[node.put(layer_type, b"tar")]);
            let guest = node.guest(&image).expect("a guest");
            assert_eq!(
                guest,
                ImageGuest::Rootfs {
                    platform: Some(platform(os, architecture)),
                    config: target(&config).digest,
                }
            );
        }
    }
}

#[test]
fn a_wasm_layer_beside_a_filesystem_is_the_guest() {
    let node = Node::new();
    let config = node.json(OCI_CONFIG, &json!({"rootfs": {"diff_ids": []}}));
    let image = node.manifest(
        &config,
        &[node.put(TAR, b"tar"), node.put(COMPONENT, b"wasm")],
    );
    assert_layer(node.guest(&image), b"wasm", Binding::Name);
}

/// field.md, image-id confusion: another manifest around a copy of the victim's config.
#[test]
fn a_copied_config_does_not_carry_another_layer() {
    let node = Node::new();
    let victim_layer = node.put(WASM, b"victim");
    let evil_layer = node.put(WASM, b"evil");
    let victim = node.artifact(std::slice::from_ref(&victim_layer));
    let document: Value = serde_json::from_slice(
        &fs::read(node.content.path(&target(&victim).digest)).expect("read"),
    )
    .expect("json");
    let config = &document["config"];
    let both = [text(&victim_layer["digest"]), text(&evil_layer["digest"])];

    let evil = node.manifest(config, std::slice::from_ref(&evil_layer));
    let error = node.refused(&evil, &both);
    assert!(matches!(error, ImageError::Unbound { .. }));
    assert_eq!(error.fault(), Fault::Invalid);

    // Whatever the manifest calls the config, and in whatever order, and beside the true layer.
    for config_type in [EMPTY_CONFIG, OCI_CONFIG, "application/json", ""] {
        let config = with(config.clone(), "mediaType", json!(config_type));
        for layer_type in [WASM, COMPONENT, CONTENT, MODULE] {
            let layer = with(evil_layer.clone(), "mediaType", json!(layer_type));
            node.refused(&node.manifest(&config, std::slice::from_ref(&layer)), &both);
        }
        let tar = with(victim_layer.clone(), "mediaType", json!(TAR));
        for layers in [
            vec![tar.clone(), evil_layer.clone()],
            vec![evil_layer.clone(), tar],
            vec![],
        ] {
            let error = node
                .guest(&node.manifest(&config, &layers))
                .expect_err("refused");
            assert!(matches!(error, ImageError::Unbound { .. }), "{error}");
        }
    }

    // The name decides; without one, the victim still gets its own layer, in either order.
    let (victim, evil) = (target(&victim), target(&evil));
    let by_id = [evil.clone(), victim.clone()];
    let reversed = [victim.clone(), evil.clone()];
    let found = |named: Option<&Target>, by_id: &[Target]| {
        resolve(&node.content, named.cloned(), by_id, &host())
    };
    assert_layer(
        found(Some(&victim), &by_id),
        b"victim",
        Binding::LayerDigests,
    );
    assert_layer(found(None, &by_id), b"victim", Binding::LayerDigests);
    assert_layer(found(None, &reversed), b"victim", Binding::LayerDigests);
    says(&found(Some(&evil), &by_id).expect_err("refused"), &both);
    says(&found(None, &[evil]).expect_err("refused"), &both);
}

#[test]
fn artifacts_that_share_the_empty_config_are_told_apart_by_name_alone() {
    let node = Node::new();
    let config = node.json(EMPTY_CONFIG, &json!({}));
    let one = target(&node.manifest(&config, &[node.put(CONTENT, b"one")]));
    let two = target(&node.manifest(&config, &[node.put(CONTENT, b"two")]));
    let by_id = [one.clone(), two.clone()];
    let content = &node.content;
    let guest = resolve(content, Some(two.clone()), &by_id, &host());
    assert_layer(guest, b"two", Binding::Name);
    let error = resolve(content, None, &by_id, &host()).expect_err("ambiguous");
    says(&error, &[&one.digest.to_string(), &two.digest.to_string()]);
    assert_eq!(error.fault(), Fault::Precondition);
    // One image under several names is one.
    let guest = resolve(content, None, &[one.clone(), one], &host());
    assert_layer(guest, b"one", Binding::Name);
    assert!(matches!(
        resolve(content, None, &[], &host()),
        Err(ImageError::NoTarget)
    ));
    assert_eq!(
        image_id(content, &two, &host()).expect("an id"),
        digest(b"{}"),
        "CRI's image id is the config"
    );
}

#[test]
fn one_config_bound_by_diff_ids_takes_no_other_guest() {
    let node = Node::new();
    let layer = node.put(COMPONENT, b"victim");
    let config = json!({"rootfs": {"diff_ids": [layer["digest"]]}});
    let config = node.json(OCI_CONFIG, &config);
    let victim = target(&node.manifest(&config, std::slice::from_ref(&layer)));
    let evil = target(&node.manifest(&config, &[node.put(COMPONENT, b"evil")]));
    for by_id in [[victim.clone(), evil.clone()], [evil, victim.clone()]] {
        let guest = resolve(&node.content, None, &by_id, &host());
        assert_layer(guest, b"victim", Binding::DiffIds);
    }
    // A filesystem cannot be told from it by the config: nobody runs.
    let filesystem = target(&node.manifest(&config, &[node.put(TAR, b"tar")]));
    let error = resolve(&node.content, None, &[victim, filesystem], &host()).expect_err("two");
    assert!(matches!(error, ImageError::Ambiguous { .. }), "{error}");
}

/// Nobody keeps another's pod from starting by an image that is refused.
#[test]
fn a_refused_image_with_a_copied_config_stops_nobody() {
    let node = Node::new();
    let layer = node.put(WASM, b"victim");
    let config = json!({"layerDigests": [layer["digest"]]});
    let config = node.json(WASM_CONFIG, &config);
    let victim = target(&node.manifest(&config, std::slice::from_ref(&layer)));
    let title = json!({"org.opencontainers.image.title": "x.cwasm"});
    let titled = with(layer.clone(), "annotations", title);
    let absent = describe(WASM, b"absent", &digest(b"absent"));
    for layers in [vec![titled], vec![absent], vec![layer.clone(), layer]] {
        let evil = target(&node.manifest(&config, &layers));
        assert_eq!(
            image_id(&node.content, &evil, &host()).expect("an id"),
            image_id(&node.content, &victim, &host()).expect("an id"),
            "containerd counts it to the same image"
        );
        let guest = resolve(&node.content, None, &[evil, victim.clone()], &host());
        assert_layer(guest, b"victim", Binding::LayerDigests);
    }
}

#[test]
fn two_wasm_layers_are_one_too_many() {
    let node = Node::new();
    let layers = [node.put(WASM, b"one"), node.put(COMPONENT, b"two")];
    let names = [text(&layers[0]["digest"]), text(&layers[1]["digest"])];
    node.refused(&node.artifact(&layers), &names);
}

#[test]
fn precompiled_layers_are_refused_by_name() {
    let node = Node::new();
    for media_type in [
        "application/vnd.wasmtime.precompiled.v1",
        "application/vnd.bytecodealliance.wasm.component.layer.v0+cwasm",
        "application/cwasm",
    ] {
        let image = node.artifact(&[node.put(media_type, b"native")]);
        let error = node.refused(&image, &[media_type, "precompiled"]);
        assert!(matches!(error, ImageError::Precompiled { .. }));
    }
    for title in ["app.cwasm", "APP.CWASM", "app.aot"] {
        let annotations = json!({"org.opencontainers.image.title": title});
        let layer = with(node.put(WASM, b"native"), "annotations", annotations);
        node.refused(&node.artifact(&[layer]), &[title, "precompiled"]);
    }
}

#[test]
fn an_image_of_other_things_says_what_it_has() {
    let node = Node::new();
    let config = node.json(OCI_CONFIG, &json!({}));
    let image = node.manifest(&config, &[node.put("application/vnd.helm.chart", b"chart")]);
    let words = ["application/vnd.helm.chart", WASM, COMPONENT];
    let error = node.refused(&image, &words);
    assert!(matches!(error, ImageError::NoLayer { .. }));
    let config = node.json(
        WASM_CONFIG,
        &json!({"architecture": "wasm", "os": "wasip1"}),
    );
    node.refused(&node.manifest(&config, &[]), &["no wasm layer", "none"]);
    node.refused(&node.manifest(&config, &[node.put(TAR, b"tar")]), &[TAR]);
}

#[test]
fn a_wasm_config_for_another_architecture_is_refused() {
    let node = Node::new();
    let config = node.json(
        WASM_CONFIG,
        &json!({"architecture": "arm64", "os": "linux"}),
    );
    let image = node.manifest(&config, &[node.put(WASM, b"wasm")]);
    node.refused(&image, &["linux/arm64"]);
}

fn entry(descriptor: &Value, os: &str, architecture: &str) -> Value {
    with(
        descriptor.clone(),
        "platform",
        json!({"os": os, "architecture": architecture}),
    )
}

impl Node {
    fn index(&self, entries: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        self.json(INDEX, &index)
    }
}

#[test]
fn of_an_index_wasm_comes_first_then_the_host() {
    let node = Node::new();
    let wasm = node.artifact(&[node.put(WASM, b"wasm")]);
    let plain = node.artifact(&[node.put(WASM, b"plain")]);
    let config = node.json(OCI_CONFIG, &json!({"os": "linux", "architecture": "amd64"}));
    let native = node.manifest(&config, &[node.put(TAR, b"tar")]);
    let attestation = entry(&native, "unknown", "unknown");

    for (os, architecture) in [("wasi", "wasm"), ("wasip1", "wasm"), ("wasip2", "wasm")] {
        let image = node.index(&[
            attestation.clone(),
            entry(&native, "linux", "amd64"),
            entry(&wasm, os, architecture),
        ]);
        assert_layer(node.guest(&image), b"wasm", Binding::LayerDigests);
    }
    let image = node.index(&[
        plain.clone(),
        entry(&wasm, "linux", "arm64"),
        entry(&native, "linux", "amd64"),
    ]);
    assert!(matches!(node.guest(&image), Ok(ImageGuest::Rootfs { .. })));
    let image = node.index(&[attestation, plain]);
    assert_layer(node.guest(&image), b"plain", Binding::LayerDigests);
    // Within an index.
    let image = node.index(&[node.index(&[entry(&wasm, "wasi", "wasm")])]);
    assert_layer(node.guest(&image), b"wasm", Binding::LayerDigests);
}

#[test]
fn an_index_without_a_fitting_entry_says_what_there_is() {
    let node = Node::new();
    let any = node.artifact(&[node.put(WASM, b"wasm")]);
    let image = node.index(&[
        entry(&any, "linux", "s390x"),
        entry(&any, "windows", "amd64"),
    ]);
    node.refused(
        &image,
        &["linux/s390x", "windows/amd64", "linux/amd64", "wasi/wasm"],
    );
    node.refused(&node.index(&[]), &["none"]);
    let many: Vec<_> = (0..1000)
        .map(|n| entry(&any, "linux", &format!("a{n}\n\u{1b}")))
        .collect();
    node.refused(&node.index(&many), &["992 more"]);
}

#[test]
fn what_containerd_did_not_pull_of_an_index_is_passed_over() {
    let node = Node::new();
    let config = node.json(OCI_CONFIG, &json!({"os": "linux", "architecture": "amd64"}));
    let native = node.manifest(&config, &[node.put(TAR, b"tar")]);
    let absent = describe(MANIFEST, b"absent", &digest(b"absent"));
    let image = node.index(&[
        entry(&absent, "wasi", "wasm"),
        entry(&native, "linux", "amd64"),
    ]);
    assert!(matches!(node.guest(&image), Ok(ImageGuest::Rootfs { .. })));
    let image = node.index(&[entry(&absent, "wasi", "wasm")]);
    let error = node.refused(&image, &[text(&absent["digest"])]);
    assert_eq!(error.fault(), Fault::NotFound);
    // But a broken entry is no reason to run something else.
    let broken = node.put(MANIFEST, b"{");
    let image = node.index(&[
        entry(&broken, "wasi", "wasm"),
        entry(&native, "linux", "amd64"),
    ]);
    node.refused(&image, &[text(&broken["digest"])]);
}

#[test]
fn indexes_end() {
    let node = Node::new();
    let mut image = node.artifact(&[node.put(WASM, b"wasm")]);
    for _ in 0..40 {
        image = node.index(&[image]);
    }
    assert!(matches!(node.guest(&image), Err(ImageError::TooDeep(_))));
    // Broad and deep with nothing at the end: the reads are counted, not the levels.
    let absent = describe(MANIFEST, b"absent", &digest(b"absent"));
    let mut image = node.index(&vec![absent; 50]);
    for _ in 0..5 {
        image = node.index(&vec![image; 50]);
    }
    assert!(matches!(node.guest(&image), Err(ImageError::TooDeep(_))));
}

#[test]
fn corrupt_missing_and_oversized_documents_are_named() {
    let node = Node::new();
    let layer = node.put(WASM, b"wasm");
    let image = node.artifact(std::slice::from_ref(&layer));
    let path = node.content.path(&target(&image).digest);
    let sound = fs::read(&path).expect("readable");

    let mut changed = sound.clone();
    changed[20] ^= 1;
    fs::write(&path, &changed).expect("written");
    let both = [
        target(&image).digest.to_string(),
        digest(&changed).to_string(),
    ];
    let error = node.refused(&image, &[&both[0], &both[1]]);
    assert!(matches!(error, ImageError::Corrupt { .. }));

    fs::write(&path, &sound).expect("written");
    let error = node.refused(&with(image.clone(), "size", json!(3)), &["says 3"]);
    assert!(matches!(error, ImageError::Size { .. }));

    fs::remove_file(&path).expect("removed");
    let error = node.refused(&image, &[&both[0]]);
    assert!(matches!(error, ImageError::Missing { .. }));
    fs::create_dir(&path).expect("a directory");
    let error = node.guest(&image).expect_err("refused");
    assert!(matches!(error, ImageError::Read { .. }), "{error}");

    let large = vec![b' '; DOCUMENT_LIMIT as usize + 1];
    let image = node.put(MANIFEST, &large);
    let error = node.refused(&image, &["8388608", "8388609"]);
    assert!(matches!(error, ImageError::TooLarge { .. }));
    let config = describe(WASM_CONFIG, &large, &node.blob(&large));
    let image = node.manifest(&config, std::slice::from_ref(&layer));
    assert!(matches!(
        node.guest(&image),
        Err(ImageError::TooLarge { .. })
    ));
    let image = node.manifest(&with(config, "size", json!(u64::MAX)), &[layer]);
    assert!(matches!(
        node.guest(&image),
        Err(ImageError::TooLarge { .. })
    ));
}

#[test]
fn a_layer_is_missing_or_of_another_size() {
    let node = Node::new();
    let absent = describe(WASM, b"absent", &digest(b"absent"));
    let error = node.refused(&node.artifact(&[absent]), &[&digest(b"absent").to_string()]);
    assert!(matches!(error, ImageError::Missing { .. }));
    let layer = with(node.put(WASM, b"wasm"), "size", json!(5));
    node.refused(&node.artifact(&[layer]), &["has 4 bytes", "says 5"]);
}

#[test]
fn a_corrupt_config_is_found() {
    let node = Node::new();
    let layer = node.put(WASM, b"wasm");
    let config = node.json(WASM_CONFIG, &json!({"layerDigests": [layer["digest"]]}));
    let image = node.manifest(&config, &[layer]);
    fs::write(node.content.path(&target(&config).digest), b"{}").expect("written");
    let error = node.guest(&image).expect_err("refused");
    assert!(matches!(error, ImageError::Corrupt { .. }));
}

#[test]
fn a_pipe_in_the_content_store_does_not_block() {
    let node = Node::new();
    let fake = describe(MANIFEST, b"pipe", &digest(b"pipe"));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let path = node.content.path(&digest(b"pipe"));
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a pipe");
    assert!(matches!(node.guest(&fake), Err(ImageError::Read { .. })));
}

#[test]
fn links_in_the_content_store_are_not_followed() {
    let node = Node::new();
    let elsewhere = node.content.root().join("elsewhere");
    fs::write(&elsewhere, b"{}").expect("written");
    let path = node.content.path(&digest(b"{} "));
    std::os::unix::fs::symlink(&elsewhere, &path).expect("a link");
    let fake = describe(MANIFEST, b"{} ", &digest(b"{} "));
    assert!(matches!(node.guest(&fake), Err(ImageError::Read { .. })));
}

#[test]
fn hostile_documents_are_invalid_and_nothing_worse() {
    let node = Node::new();
    let layer = node.put(WASM, b"wasm").to_string();
    let config = node.json(EMPTY_CONFIG, &json!({})).to_string();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let evil = |digest: &str| format!(r#"{{"mediaType":"{WASM}","digest":"{digest}","size":4}}"#);
    let around = |layer: &str| format!(r#"{{"config":{config},"layers":[{layer}]}}"#);
    let hostile = [
        String::new(),
        "{".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "\u{0}".to_owned(),
        "\"text\"".to_owned(),
        deep.clone(),
        format!(r#"{{"config":{config},"layers":[{layer}],"manifests":[]}}"#),
        format!(r#"{{"config":{config},"config":{config},"layers":[{layer}]}}"#),
        format!(r#"{{"layers":[{layer}]}}"#),
        format!(r#"{{"config":{config},"layers":{layer}}}"#),
        format!(r#"{{"config":{config},"layers":[{layer}]}} trailing"#),
        format!(r#"{{"mediaType":"{INDEX}","config":{config},"layers":[{layer}]}}"#),
        format!(r#"{{"mediaType":"{MANIFEST}","manifests":[{layer}]}}"#),
        r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}"#.to_owned(),
        r#"{"config":{"mediaType":"x","digest":"sha256:00","size":1},"layers":[]}"#.to_owned(),
        r#"{"manifests":[{"digest":"sha512:00","size":1}]}"#.to_owned(),
        around(&evil("")),
        around(&evil("sha256:../../../../etc/passwd")),
        around(&evil(&format!("sha256:../{}", "0".repeat(61)))),
        around(&evil(&format!("sha256:{}", "A".repeat(64)))),
        around(&evil("/etc/passwd")),
        around(&layer.replace("\"size\":4", "\"size\":-4")),
        around(&layer.replace("\"size\":4", "\"size\":4e99")),
        around(&layer.replace("\"size\":4", "\"size\":\"4\"")),
        around("null"),
    ];
    for document in hostile {
        for media_type in [MANIFEST, INDEX, ""] {
            let image = node.put(media_type, document.as_bytes());
            let error = node.guest(&image).expect_err("refused");
            assert!(
                matches!(error, ImageError::Invalid { .. }),
                "{error}: {:.80}",
                document
            );
            assert_eq!(error.fault(), Fault::Invalid);
            says(&error, &[text(&image["digest"])]);
        }
    }
}

/// What we do not read may be as deep as it likes: it is skipped without recursion.
#[test]
fn unknown_fields_are_skipped_however_deep() {
    let node = Node::new();
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    let layer = node.put(CONTENT, b"wasm");
    let config = node.json(EMPTY_CONFIG, &json!({}));
    let document = format!(r#"{{"x":{deep},"config":{config},"layers":[{layer}]}}"#);
    let image = node.put(MANIFEST, document.as_bytes());
    assert_layer(node.guest(&image), b"wasm", Binding::Name);
}

/// Every prefix and many one-byte changes of real documents: no panic, and never another layer
/// than the one that stands there.
#[test]
fn damaged_documents_never_panic() {
    let node = Node::new();
    let wasm = node.artifact(&[node.put(WASM, b"wasm")]);
    let index = node.index(&[entry(&wasm, "wasi", "wasm")]);
    for image in [wasm, index] {
        let sound = fs::read(node.content.path(&target(&image).digest)).expect("readable");
        let prefixes = (0..sound.len()).map(|end| sound[..end].to_vec());
        let changes = (0..sound.len()).flat_map(|at| {
            [0, b'"', b'{', b'[', b'9', b',', 0xff].map(|byte| {
                let mut changed = sound.clone();
                changed[at] = byte;
                changed
            })
        });
        for damaged in prefixes.chain(changes) {
            let found = node.guest(&describe("", &damaged, &node.blob(&damaged)));
            if let Ok(ImageGuest::Layer { digest: found, .. }) = found {
                assert_eq!(found, digest(b"wasm"));
            }
        }
    }
}

#[test]
fn a_broken_config_is_invalid_where_its_type_is_known() {
    let node = Node::new();
    let layer = node.put(WASM, b"wasm");
    for config in [
        "",
        "[]",
        "{\"layerDigests\": 5}",
        "{\"rootfs\": []}",
        "{\"layerDigests\": [5]}",
    ] {
        for known in [WASM_CONFIG, OCI_CONFIG] {
            let config = node.put(known, config.as_bytes());
            let image = node.manifest(&config, std::slice::from_ref(&layer));
            node.refused(&image, &["config", text(&config["digest"])]);
        }
    }
}

#[test]
fn paths_are_made_of_digits_alone() {
    let path = Content::new("/content").path(&Digest::new([0xab; 32]));
    assert_eq!(
        path,
        PathBuf::from(format!("/content/blobs/sha256/{}", "ab".repeat(32)))
    );
}

#[test]
fn the_platform_of_this_node_is_gos() {
    let host = Platform::host();
    assert_eq!(host.os, "linux");
    assert!(!["x86_64", "aarch64"].contains(&host.architecture.as_str()));
    assert!(!host.is_wasm() && platform("wasip2", "wasm").is_wasm());
    assert!(!platform("js", "wasm").is_wasm());
}
