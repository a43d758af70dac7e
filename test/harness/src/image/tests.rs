use std::io::Read;

use super::*;

fn parsed(blob: &Blob) -> Value {
    serde_json::from_slice(&blob.bytes).expect("JSON")
}

#[test]
fn a_cncf_artifact_binds_its_layer() {
    let image = cncf(b"wasm".to_vec(), "wasip2");
    let config = parsed(&image.config);
    assert_eq!(
        image.config.media_type,
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(config["layerDigests"], json!([image.layers[0].digest()]));
    assert_eq!(config["os"], "wasip2");
    assert_eq!(config["architecture"], "wasm");
    assert!(config.get("component").is_some());
    assert_eq!(image.layers[0].media_type, "application/wasm");
    let manifest = parsed(&image.manifest);
    assert_eq!(manifest["config"]["digest"], image.config.digest());
    assert_eq!(manifest["layers"][0]["size"], 4);
}

#[test]
fn configs_are_unique_except_where_the_format_forbids_it() {
    for make in [bytecode_alliance, content_layer, module_content_layer] {
        assert_ne!(make(b"a".to_vec()).config, make(b"a".to_vec()).config);
    }
    assert_ne!(
        cncf(b"a".to_vec(), "wasip1").config,
        cncf(b"a".to_vec(), "wasip1").config
    );
    assert_eq!(oras(b"a".to_vec()).config, oras(b"b".to_vec()).config);
}

#[test]
fn an_oras_artifact_is_what_oras_makes() {
    let manifest = parsed(&oras(b"a".to_vec()).manifest);
    assert_eq!(manifest["artifactType"], CONTENT_LAYER);
    assert_eq!(
        manifest["config"],
        json!({
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
            "data": "e30=",
        })
    );
    assert_eq!(
        manifest["layers"][0]["annotations"]["org.opencontainers.image.title"],
        "app.wasm"
    );
}

#[test]
fn a_rootfs_holds_its_files_and_their_parents() {
    let image = Rootfs::new()
        .file("/app/hello.wasm", "wasm")
        .symlink("/link", "app/hello.wasm")
        .platform("wasi/wasm")
        .entrypoint(["/app/hello.wasm"])
        .build()
        .expect("fits into tar");
    let config = parsed(&image.config);
    assert_eq!(config["os"], "wasi");
    assert_eq!(config["architecture"], "wasm");
    assert_eq!(config["config"]["Entrypoint"], json!(["/app/hello.wasm"]));
    assert_eq!(
        config["rootfs"]["diff_ids"],
        json!([image.layers[0].digest()])
    );
    let mut layer = tar::Archive::new(&image.layers[0].bytes[..]);
    let names: Vec<String> = layer
        .entries()
        .expect("a tar")
        .map(|entry| {
            entry
                .expect("an entry")
                .path()
                .expect("a path")
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(
        names,
        ["app", "app/hello.wasm", "link", ".sampan-test-image"]
    );
}

#[test]
fn an_index_lists_platforms_and_an_archive_holds_every_blob() {
    let image = |platform| {
        Rootfs::new()
            .platform(platform)
            .build()
            .expect("fits into tar")
    };
    let index = Index::new(vec![image("linux/amd64"), image("wasi/wasm")]);
    let top = parsed(index.manifest());
    assert_eq!(
        top["manifests"][1]["platform"],
        json!({ "os": "wasi", "architecture": "wasm" })
    );

    let archive = archive("example.test/x:v1", &index).expect("memory");
    let mut names = Vec::new();
    let mut layout = String::new();
    for entry in tar::Archive::new(&archive[..]).entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        if path == "index.json" {
            entry.read_to_string(&mut layout).expect("text");
        }
        names.push(path);
    }
    for blob in index
        .blobs()
        .into_iter()
        .chain(index.inner_manifests())
        .chain([index.manifest()])
    {
        assert!(names.contains(&format!("blobs/{}", blob.digest().replace(':', "/"))));
    }
    let layout: Value = serde_json::from_str(&layout).expect("JSON");
    assert_eq!(layout["manifests"][0]["digest"], index.manifest().digest());
    assert_eq!(
        layout["manifests"][0]["annotations"]["io.containerd.image.name"],
        "example.test/x:v1"
    );
}

#[test]
fn an_archive_is_read_as_it_was_packed() {
    let image = Rootfs::new()
        .file("/app", "content")
        .build()
        .expect("an image");
    let packed = archive("localhost/test:v1", &image).expect("an archive");
    let read = read_archive(&packed).expect("an image");
    assert_eq!(read.manifest, image.manifest);
    assert_eq!(read.config, image.config);
    assert_eq!(read.layers, image.layers);
    assert!(read_archive(b"").is_err());
    let layer = &read.layers[0];
    assert_eq!(read_file(layer, "app").expect("a file"), b"content");
    assert!(read_file(layer, "other").is_err());
}
