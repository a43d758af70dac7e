//! The command line as people meet it: what is asked wrongly is told in a line with the right exit code.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The tool, with a cache of its own.
struct Tool(TempDir);

impl Tool {
    fn new() -> Self {
        Self(TempDir::new().expect("a directory"))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_sampan"))
            .args(arguments)
            .env_clear()
            .env("XDG_CACHE_HOME", self.0.path())
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .expect("the tool starts")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        let output = self.run(&all);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"))
    }

    /// One line, this code, these words.
    fn refuses(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(said.starts_with("sampan: "), "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?}: no {word:?} in {said}");
        }
    }
}

const MODULE: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (call $exit (i32.const 7)))
    (func (export "other"))
    (func (export "add") (param i32 i32)))"#;

#[test]
fn wrong_programs_are_told_in_a_line() {
    let tool = Tool::new();
    let wrong = [
        (tool.file("empty.wasm", ""), "empty"),
        (tool.file("elf", b"\x7fELF\x02\x01\x01\0rest"), "native"),
        (
            tool.file("x.cwasm", b"\x7fELF\x02\x01\x01\xc8rest"),
            "precompiled",
        ),
        (tool.file("cut.wasm", b"\0asm\x01\0\0"), "truncated"),
        (
            tool.file("text.wasm", "(module (func"),
            "no valid WebAssembly text",
        ),
        (tool.file("words.wasm", "hello"), "not WebAssembly"),
        (
            tool.file("bad.wasm", b"\0asm\x01\0\0\0\x01\x01\xff"),
            "program is",
        ),
    ];
    for (path, words) in &wrong {
        tool.refuses(&["inspect", path], 1, &[words, path]);
        tool.refuses(&["run", path], 126, &[words, path]);
    }
    for (name, words) in [
        ("missing.wasm", "cannot open missing.wasm"),
        ("./missing", "cannot open ./missing"),
        ("missing", "cannot open missing"),
    ] {
        tool.refuses(&["inspect", name], 2, &[words]);
        tool.refuses(&["run", name], 127, &[words]);
    }
    tool.refuses(&["inspect", "."], 2, &["no OCI image layout"]);
    tool.refuses(&["inspect", "-"], 1, &["standard input", "empty"]);
    tool.refuses(&["inspect", "Wrong/Name:v1"], 2, &["neither a file nor"]);
    // Nobody listens there.
    tool.refuses(&["inspect", "127.0.0.1:1/hello:v1"], 3, &["127.0.0.1:1"]);
    tool.refuses(&["run", "127.0.0.1:1/hello:v1"], 125, &["127.0.0.1:1"]);
}

#[test]
fn wrong_requests_are_told_in_a_line() {
    let tool = Tool::new();
    let module = tool.file("app.wat", MODULE);
    let node = tool.file("config.toml", "[ceilings]\nnetwork = 'none'\n");
    let no_node = tool.file("wrong.toml", "nonsense = 1\n");
    for (arguments, code, words) in [
        (
            &["--set", "no-such=1"][..],
            2,
            "sampan.dev/no-such: does not exist",
        ),
        (
            &["--set", "network=some"],
            2,
            "`some` is not all, listen or none",
        ),
        (
            &["--set", "network=all", "--node-config", &node],
            2,
            "beyond the node's ceiling",
        ),
        (&["--class-set", "no-such=1"], 2, "runtime option no-such"),
        (&["--node-config", &no_node], 2, "nonsense"),
        (&["--node-config", "none.toml"], 2, "none.toml"),
    ] {
        for command in ["inspect", "run"] {
            let mut all = vec![command, module.as_str()];
            all.extend(arguments);
            let code = if command == "run" && words == "none.toml" {
                127
            } else {
                code
            };
            tool.refuses(&all, code, &[words]);
        }
    }
    tool.refuses(
        &["run", &module, "--entry", "#none"],
        127,
        &["`none`", "`other`"],
    );
    tool.refuses(
        &["run", &module, "--entry", "#add"],
        126,
        &["takes parameters"],
    );
    tool.refuses(
        &["run", &module, "--memory", "lots"],
        2,
        &["--memory", "lots"],
    );
    tool.refuses(&["run", &module, "--cwd", "relative"], 2, &["process.cwd"]);
    tool.refuses(
        &["run", &module, "--dir", "none:/data"],
        2,
        &["none is not a directory"],
    );
    tool.refuses(&["run", &module, "--set", "on-term=none"], 127, &["`none`"]);
}

#[test]
fn wrong_command_lines_show_how_it_goes() {
    let tool = Tool::new();
    for arguments in [
        &["nothing"][..],
        &["inspect"],
        &["run"],
        &["explain"],
        &["run", "x", "--dir", "relative"],
        &["run", "x", "--env", "novalue"],
        &["run", "x", "--container", "c"],
        &["inspect", "x", "--output", "xml"],
        &["completions", "cmd"],
        &["compile"],
        &["compile", "x", "--to", "f", "--store", "/s"],
        &["top", "--interval", "0"],
        &["top", "--sort", "colour"],
        &["profile"],
        &["profile", "x", "--seconds", "0"],
        &["profile", "x", "--format", "png"],
        &["perf-map"],
        &["coredump"],
    ] {
        tool.refuses(arguments, 2, &["--help says how it goes"]);
    }
    for bare in [&[][..], &["store"]] {
        let bare = tool.run(bare);
        assert_eq!(bare.status.code(), Some(2), "{bare:?}");
        assert!(String::from_utf8_lossy(&bare.stderr).contains("Examples"));
    }
    let output = tool.run(&["inspect", "--none", "--output", "json"]);
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(error["code"], 2, "{error}");
    for command in [
        "inspect",
        "explain",
        "run",
        "compile",
        "pack",
        "push",
        "store",
        "store ls",
        "store gc",
        "store verify",
        "doctor",
        "top",
        "profile",
        "perf-map",
        "coredump",
        "completions",
    ] {
        let mut arguments: Vec<_> = command.split(' ').collect();
        arguments.push("--help");
        let output = tool.run(&arguments);
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && help.contains("Example"),
            "{help}"
        );
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = tool.run(&["completions", shell]);
        assert!(String::from_utf8_lossy(&script.stdout).contains("inspect"));
    }
}

#[test]
fn errors_are_json_too() {
    let tool = Tool::new();
    let output = tool.run(&["inspect", "missing.wasm", "--output", "json"]);
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(error["code"], 2);
    assert!(
        error["error"]
            .as_str()
            .is_some_and(|error| error.contains("missing.wasm"))
    );
}

#[test]
fn a_program_is_looked_at() {
    let tool = Tool::new();
    let module = tool.file("app.wat", MODULE);
    let report = tool.json(&["inspect", &module, "--compile"]);
    assert_eq!(report["kind"], "module");
    assert_eq!(report["runs"], "the function `_start`, once");
    assert_eq!(report["wasi"][0], "preview 1");
    assert_eq!(report["imports"][0]["answer"], "provided");
    assert_eq!(report["memories"][0]["initial"], 65536);
    assert!(
        report["compiled"]["bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 1000)
    );
    let hows: Vec<_> = report["exports"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| e["how"].clone())
        .collect();
    assert_eq!(hows[0], "runs");
    assert_eq!(hows[1], "can be called: `#other`");
    assert_eq!(hows[2], "cannot be called: it takes i32, i32");
    let text = tool.run(&["inspect", &module]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("imports") && !text.contains('\u{1b}'),
        "{text}"
    );

    let wants = tool.file("wants.wat", r#"(module (import "env" "nope" (func)) (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32))) (func (export "_start")))"#);
    let report = tool.json(&["inspect", &wants]);
    assert_eq!(report["imports"][0]["answer"], "not-provided");
    assert_eq!(report["imports"][1]["answer"], "provided");
    assert!(
        report["refused"]
            .as_str()
            .is_some_and(|why| why.contains("`env` `nope`"))
    );
    assert_eq!(tool.run(&["inspect", &wants]).status.code(), Some(1));
}

/// All imports of a component are answered, those behind the first that is missing too.
#[test]
fn every_import_of_a_component_is_answered() {
    let tool = Tool::new();
    let component = tool.file(
        "app.wat",
        r#"(component
            (import "acme:one/a@1.0.0" (instance $a (export "r" (type (sub resource))) (export "f" (func))))
            (import "wasi:cli/exit@0.2.0" (instance (export "no-such" (func))))
            (import "wasi:random/random@0.2.3" (instance (export "get-random-u64" (func (result u64)))))
            (import "wasi:http/types@0.9.0" (instance (export "fields" (type (sub resource)))))
            (import "wasi:config/store@0.2.0-draft" (instance))
            (import "wasi:clocks/monotonic-clock@0.2.9" (instance (export "now" (func (result u64))))))"#,
    );
    let report = tool.json(&["inspect", &component]);
    let answers: Vec<_> = report["imports"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|import| import["answer"].as_str().expect("text"))
        .collect();
    assert_eq!(
        answers,
        [
            "not-provided",
            "not-provided",
            "provided",
            "not-provided",
            "provided-by-option",
            "provided"
        ],
        "{report:#}"
    );
    assert!(
        report["refused"]
            .as_str()
            .is_some_and(|why| why.contains("acme:one/a"))
    );
}

#[test]
fn a_program_runs_with_what_it_is_given() {
    let tool = Tool::new();
    let module = tool.file("app.wat", MODULE);
    let output = tool.run(&["run", &module]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(output.stderr.is_empty() && output.stdout.is_empty());
    assert_eq!(
        tool.run(&["run", &module, "--entry", "#other"])
            .status
            .code(),
        Some(0)
    );
    let left = tool.0.path().join("sampan/cli/run");
    assert_eq!(std::fs::read_dir(left).expect("there").count(), 0);
    assert!(tool.0.path().join("sampan/cli/store/artifacts").is_dir());
}

/// What a killed run left is gone after the next one; what a living one has stays.
#[test]
fn leftovers_are_swept() {
    let tool = Tool::new();
    let place = tool.0.path().join("sampan/cli/run");
    std::fs::create_dir_all(place.join("left/root")).expect("made");
    std::fs::create_dir_all(place.join("living/root")).expect("made");
    let living = std::fs::File::open(place.join("living")).expect("opened");
    living.lock().expect("locked");
    let module = tool.file("app.wat", MODULE);
    assert_eq!(tool.run(&["run", &module]).status.code(), Some(7));
    assert!(!place.join("left").exists() && place.join("living/root").exists());
}

const POD: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: hello, LEVEL: debug}
---
apiVersion: v1
kind: Pod
metadata:
  name: app
  annotations: {sampan.dev/network: listen, sampan.dev/rootfs: ro}
spec:
  runtimeClassName: sampan
  volumes:
    - {name: settings, configMap: {name: settings}}
    - {name: scratch, emptyDir: {}}
    - {name: claim, persistentVolumeClaim: {claimName: data}}
  containers:
    - name: app
      image: registry.example/app:v1
      command: ["/"]
      args: ["$(LEVEL)", "$(NONE)"]
      env:
        - {name: LEVEL, valueFrom: {configMapKeyRef: {name: settings, key: LEVEL}}}
        - {name: TOKEN, valueFrom: {secretKeyRef: {name: token, key: t}}}
      volumeMounts:
        - {name: settings, mountPath: /etc/settings}
        - {name: settings, mountPath: /etc/greeting, subPath: greeting}
        - {name: scratch, mountPath: /scratch}
      resources: {limits: {memory: 64Mi}}
"#;

#[test]
fn a_pod_is_explained() {
    let tool = Tool::new();
    let pod = tool.file("pod.yaml", POD);
    let answer = &tool.json(&["explain", &pod])[0];
    assert_eq!(answer["faults"], serde_json::json!([]), "{answer:#}");
    let guest = &answer["guest"];
    assert_eq!(guest["args"], serde_json::json!(["/", "debug", "$(NONE)"]));
    assert_eq!(guest["memory"], (64 << 20) - (8 << 20));
    assert_eq!(
        guest["network"],
        "listens; connects nowhere; looks up every name"
    );
    let listed = |field: &str, name: &str| -> Vec<String> {
        let all = guest[field].as_array().expect("a list");
        all.iter()
            .map(|one| one[name].as_str().expect("text").to_owned())
            .collect()
    };
    assert_eq!(
        listed("directories", "path"),
        [
            "/",
            "/etc/settings",
            "/scratch",
            "/var/run/secrets/kubernetes.io/serviceaccount"
        ]
    );
    assert_eq!(listed("directories", "access"), ["ro", "ro", "rw", "ro"]);
    assert!(listed("files", "path").contains(&"/etc/greeting".to_owned()));
    let variables = listed("variables", "name");
    assert!(variables.contains(&"LEVEL".to_owned()) && variables.contains(&"TOKEN".to_owned()));
    assert_eq!(answer["remarks"], serde_json::json!([]), "{answer:#}");
    let text = tool.run(&["explain", &pod]);
    assert!(!String::from_utf8_lossy(&text.stdout).contains("debug\u{1b}"));
}

#[test]
fn where_a_pod_leaves_core_dumps_is_explained() {
    let tool = Tool::new();
    let pod = |dir: &str| {
        let text = format!(
            r#"{{kind: Pod, metadata: {{name: p, annotations: {{sampan.dev/coredump: {dir}}}}},
            spec: {{containers: [{{name: c, image: i, volumeMounts: [{{name: v, mountPath: /dumps}}]}}],
            volumes: [{{name: v, emptyDir: {{}}}}]}}}}"#
        );
        tool.file("dumps.yaml", text)
    };
    let answer = &tool.json(&["explain", &pod("/dumps/")])[0];
    assert_eq!(answer["guest"]["coreDumps"], "/dumps", "{answer:#}");
    assert_eq!(answer["faults"], serde_json::json!([]), "{answer:#}");
    let elsewhere = pod("/crash");
    let answer = &tool.json(&["explain", &elsewhere])[0];
    let fault = &answer["faults"][0];
    assert_eq!(
        fault["field"], "annotation sampan.dev/coredump",
        "{answer:#}"
    );
    assert!(
        fault["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("is in no volume"))
    );
    assert_eq!(tool.run(&["explain", &elsewhere]).status.code(), Some(1));
}

#[test]
fn a_core_dump_is_made_and_read() {
    let tool = Tool::new();
    let module = tool.file(
        "traps.wat",
        r#"(module $shop (memory (export "memory") 1)
            (func $inner unreachable) (func (export "_start") (call $inner)))"#,
    );
    let here = tool.0.path().display().to_string();
    let output = tool.run(&["run", &module, "--coredump", &here]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(121), "{told}");
    let dump = format!("{here}/traps.0.core.wasm");
    assert!(
        told.contains(&format!("sampan: core dump: {dump} (")),
        "{told}"
    );
    let read = tool.json(&["coredump", &dump]);
    let frames = read["threads"][0]["frames"].as_array().expect("frames");
    assert_eq!(
        (&frames[0]["name"], &frames[0]["module"]),
        (&"inner".into(), &"shop".into())
    );
    assert_eq!(
        (&frames[1]["name"], frames.len()),
        (&Value::Null, 2),
        "{read:#}"
    );
    assert!(
        read["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("trap: ")),
        "{read:#}"
    );
    tool.refuses(&["coredump", &module], 2, &["traps.wat: is no"]);
    tool.refuses(&["coredump", "absent"], 2, &["cannot read absent"]);
    tool.refuses(
        &["run", &module, "--coredump", "absent"],
        127,
        &["--coredump: absent"],
    );
}

#[test]
fn who_is_no_guest_is_not_looked_at() {
    let tool = Tool::new();
    let own = std::process::id().to_string();
    for command in ["profile", "perf-map"] {
        tool.refuses(
            &[command, "nobody"],
            2,
            &["no guest of this node is called nobody"],
        );
        tool.refuses(&[command, &own], 2, &[&own, "runs no guest"]);
        tool.refuses(
            &[command, "2147483647"],
            2,
            &["cannot look at process 2147483647"],
        );
    }
}

#[test]
fn what_is_wrong_with_a_pod_is_told() {
    let tool = Tool::new();
    let deployment = tool.file(
        "deployment.yaml",
        r#"
kind: Deployment
metadata: {name: web, annotations: {sampan.dev/fuel: "5"}}
spec:
  template:
    metadata: {annotations: {sampan.dev/no-such: "1", sampan.dev/network: some}}
    spec:
      shareProcessNamespace: true
      containers:
        - name: web
          image: i
          env: [{name: A, value: x}]
          volumeMounts: [{name: none, mountPath: /data}, {name: p, mountPath: /proc/x}]
          livenessProbe: {exec: {command: [sh, -c, "true"]}}
          securityContext: {privileged: true, capabilities: {add: [NET_ADMIN]}}
          resources: {limits: {memory: 1Zi, nvidia.com/gpu: 1}}
      volumes: [{name: p, emptyDir: {}}]
"#,
    );
    let output = tool.run(&["explain", &deployment, "--output", "json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let said = |list: &str| {
        let all = answer[0][list].as_array().expect("a list");
        all.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let faults = said("faults");
    for part in [
        "no volume `none`",
        "sampan.dev/no-such",
        "`some` is not",
        "`1Zi`",
    ] {
        assert!(faults.contains(part), "no {part:?} in {faults}");
    }
    let remarks = said("remarks");
    for part in [
        "runtimeClassName",
        "\"command\"",
        "sampan.dev/fuel",
        "shareProcessNamespace",
        "livenessProbe.exec",
        "privileged",
        "capabilities.add",
        "nvidia.com/gpu",
        "/proc/x",
    ] {
        assert!(remarks.contains(part), "no {part:?} in {remarks}");
    }
    tool.refuses(
        &["explain", &deployment, "--container", "none"],
        2,
        &["`none`", "web"],
    );
    tool.refuses(&["explain", "missing.yaml"], 2, &["missing.yaml"]);
    let service = tool.file("service.yaml", "kind: Service\n");
    tool.refuses(&["explain", &service], 2, &["no pod"]);
    let broken = tool.file("broken.yaml", "kind: [\n");
    tool.refuses(&["explain", &broken], 2, &["broken.yaml"]);
    let typed = tool.file("typed.yaml", "kind: Pod\nspec: {containers: [{name: 1}]}");
    tool.refuses(&["explain", &typed], 2, &["spec.containers[0].name"]);
}

/// A container of a manifest, run here: volumes, variables, arguments.
#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn a_pods_container_runs() {
    let tool = Tool::new();
    let pod = tool.file("pod.yaml", POD);
    let home = std::env::var("HOME").expect("HOME");
    let cache = std::env::var("SAMPAN_CACHE").unwrap_or(format!("{home}/.cache/sampan"));
    let probe = Path::new(&cache)
        .join("guests/probe.wasm")
        .display()
        .to_string();
    let out = |arguments: &[&str]| {
        let mut all = vec!["run", probe.as_str(), "--pod", &pod, "--"];
        all.extend(arguments);
        let output = tool.run(&all);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(out(&["cat", "/etc/settings/LEVEL"]), "debug");
    assert_eq!(out(&["cat", "/etc/greeting"]), "hello");
    assert_eq!(out(&["write", "/scratch/x", "y"]), "ok write /scratch/x\n");
    let env = out(&["env"]);
    assert!(
        env.contains("LEVEL=debug\n") && env.contains("HOSTNAME=app\n"),
        "{env}"
    );
    let refused = tool.run(&["run", &probe, "--pod", &pod, "--", "write", "/x", "y"]);
    assert!(
        String::from_utf8_lossy(&refused.stdout).contains("PERM"),
        "{refused:?}"
    );
    tool.refuses(
        &["run", "--pod", &pod, "--container", "none"],
        127,
        &["none"],
    );
    let claimed = POD.replace("{name: scratch, mountPath", "{name: claim, mountPath");
    let claimed = tool.file("claimed.yaml", claimed);
    tool.refuses(
        &["run", &probe, "--pod", &claimed],
        2,
        &["claim data", "--dir HOST:/scratch"],
    );
}

/// Into a file, and into a store, where it is found the next time.
#[test]
fn a_program_is_compiled_ahead() {
    let tool = Tool::new();
    let module = tool.file("app.wat", MODULE);
    let file = tool.0.path().join("app.cwasm").display().to_string();
    let made = tool.json(&["compile", &module, "--to", &file]);
    let native = std::fs::read(&file).expect("written");
    assert_eq!(made["size"], native.len());
    assert!(native.starts_with(b"\x7fELF"));
    // It is not taken back.
    tool.refuses(&["run", &file], 126, &["precompiled"]);

    let store = tool.0.path().join("store").display().to_string();
    let first = tool.json(&["compile", &module, "--store", &store]);
    let again = tool.json(&["compile", &module, "--store", &store]);
    assert_eq!(
        (&first["found"], &again["found"]),
        (&false.into(), &true.into())
    );
    assert_eq!(first["digest"], again["digest"]);
    assert_eq!(first["size"], native.len());
    // Another engine, another artifact.
    let counting = tool.json(&["compile", &module, "--store", &store, "--set", "fuel=1000"]);
    assert_eq!(counting["found"], false);
    assert_ne!(counting["engine"], first["engine"]);

    let wrong = tool.file("words.wasm", "hello");
    tool.refuses(
        &["compile", &wrong, "--store", &store],
        1,
        &["not WebAssembly"],
    );
    tool.refuses(&["compile", "missing.wasm"], 2, &["missing.wasm"]);
    tool.refuses(
        &["compile", &module, "--to", "/proc/none/x"],
        3,
        &["/proc/none/x"],
    );
    tool.refuses(
        &["compile", &module, "--store", "/proc/none"],
        3,
        &["/proc/none"],
    );
}

#[test]
fn a_store_is_looked_after() {
    let tool = Tool::new();
    let store = tool.0.path().join("store");
    let place = store.display().to_string();
    tool.refuses(
        &["store", "ls", "--store", &place],
        2,
        &["there is no store in", &place],
    );
    assert!(!store.exists(), "looking makes nothing");
    let mut digests = Vec::new();
    for number in 0..3 {
        let text = MODULE.replace("i32.const 7", &format!("i32.const {number}"));
        let module = tool.file("app.wat", text);
        let made = tool.json(&["compile", &module, "--store", &place]);
        digests.push(made["digest"].as_str().expect("text").to_owned());
    }
    let listed = tool.json(&["store", "ls", "--store", &place]);
    let programs = listed["programs"].as_array().expect("a list");
    assert_eq!(programs.len(), 3, "{listed:#}");
    assert!(
        programs
            .iter()
            .all(|program| program["inUse"] == false && program["flaw"].is_null())
    );
    let text = tool.run(&["store", "ls", "--store", &place]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(digests.iter().all(|digest| text.contains(digest)), "{text}");

    let sound = tool.json(&["store", "verify", "--store", &place]);
    assert_eq!(
        (&sound["sound"], &sound["tried"]),
        (&3.into(), &3.into()),
        "{sound:#}"
    );

    // The native code of one is spoilt where only an engine looks: its own record of what it was made for.
    let engine = programs[0]["engine"].as_str().expect("text");
    let path = |digest: &str| {
        let hex = digest.trim_start_matches("sha256:");
        store
            .join("artifacts")
            .join(engine)
            .join(format!("{hex}.cwasm"))
    };
    let mut native = std::fs::read(path(&digests[0])).expect("read");
    let version = native
        .windows(2)
        .rposition(|bytes| bytes == b"48")
        .expect("the version of the engine");
    native[version] = b'9';
    std::fs::remove_file(path(&digests[0])).expect("removed");
    std::fs::write(path(&digests[0]), &native).expect("written");
    std::fs::remove_file(path(&digests[1])).expect("removed");
    std::fs::write(path(&digests[1]), &native[..100]).expect("written");
    for digest in &digests[..2] {
        let mut permissions = std::fs::metadata(path(digest))
            .expect("there")
            .permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(path(digest), permissions).expect("set");
    }
    std::fs::write(store.join("artifacts/stray"), "x").expect("written");
    let verify = ["store", "verify", "--store", &place];
    assert_eq!(tool.run(&verify).status.code(), Some(1));
    let unsound = tool.json(&verify);
    let reasons: Vec<_> = unsound["unsound"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            (
                one["digest"].as_str().expect("text"),
                one["reason"].as_str().expect("text"),
            )
        })
        .collect();
    assert_eq!(reasons.len(), 2, "{unsound:#}");
    for (digest, words) in [
        (&digests[0], "the engine refuses it"),
        (&digests[1], "it is broken"),
    ] {
        assert!(
            reasons
                .iter()
                .any(|(found, reason)| found == digest && reason.contains(words)),
            "{unsound:#}"
        );
    }
    assert_eq!(unsound["strays"].as_array().map(Vec::len), Some(1));
    let repaired = tool.run(&["store", "verify", "--repair", "--store", &place]);
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    assert_eq!(tool.json(&verify)["sound"], 1);

    let gc = |arguments: &[&str]| {
        let mut all = vec!["store", "gc", "--store", &place];
        all.extend(arguments);
        tool.json(&all)
    };
    assert_eq!(gc(&[])["removed"], 0);
    let foreseen = gc(&["--keep", "0", "--dry-run"]);
    assert_eq!(
        (&foreseen["removed"], &foreseen["keptBytes"]),
        (&1.into(), &0.into())
    );
    assert_eq!(tool.json(&verify)["sound"], 1, "nothing has gone");
    let mut done = gc(&["--keep", "0"]);
    assert_eq!(done["dryRun"], false);
    done["dryRun"] = true.into();
    assert_eq!(done, foreseen);
    assert_eq!(tool.json(&verify)["sound"], 0);
    tool.refuses(
        &["store", "gc", "--keep", "lots", "--store", &place],
        2,
        &["--keep", "lots"],
    );
    tool.refuses(
        &["store", "ls", "--store", "/proc/self/../x"],
        2,
        &["without `..`"],
    );
}

/// What runs is not removed.
#[test]
fn a_program_in_use_stays() {
    let tool = Tool::new();
    let place = tool.0.path().join("store").display().to_string();
    let module = tool.file("app.wat", MODULE);
    tool.json(&["compile", &module, "--store", &place]);
    let listed = tool.json(&["store", "ls", "--store", &place]);
    let program = &listed["programs"][0];
    let hex = program["digest"]
        .as_str()
        .expect("text")
        .trim_start_matches("sha256:");
    let engine = program["engine"].as_str().expect("text");
    let file =
        std::fs::File::open(format!("{place}/artifacts/{engine}/{hex}.cwasm")).expect("there");
    file.lock_shared().expect("locked");
    assert_eq!(
        tool.json(&["store", "ls", "--store", &place])["programs"][0]["inUse"],
        true
    );
    for dry_run in [true, false] {
        let mut arguments = vec!["store", "gc", "--keep", "0", "--store", &place];
        if dry_run {
            arguments.push("--dry-run");
        }
        let done = tool.json(&arguments);
        assert_eq!(
            (&done["removed"], &done["inUse"]),
            (&0.into(), &1.into()),
            "{done:#}"
        );
    }
}

/// Whatever this machine is, each finding has a state, and what is wrong says what to do.
#[test]
fn a_machine_is_examined() {
    let tool = Tool::new();
    let node = tool.file(
        "node.toml",
        format!(
            "[store]\npath = '{}'\n",
            tool.0.path().join("none").display()
        ),
    );
    let examined = tool.run(&[
        "doctor",
        "--no-canary",
        "--node-config",
        &node,
        "--address",
        "/none.sock",
        "--output",
        "json",
    ]);
    let answer: Value = serde_json::from_slice(&examined.stdout).expect("JSON");
    let findings = answer["findings"].as_array().expect("a list");
    let about = |name: &str| findings.iter().find(|finding| finding["about"] == name);
    for name in ["containerd", "configuration", "cgroups", "kernel", "store"] {
        assert!(about(name).is_some(), "nothing about {name} in {answer:#}");
    }
    for finding in findings {
        assert!(
            finding["state"] == "good"
                || finding["fix"].as_str().is_some_and(|fix| !fix.is_empty()),
            "{finding:#}"
        );
    }
    // No containerd listens there.
    let faulty = findings.iter().any(|finding| finding["state"] == "fault");
    assert_eq!(answer["works"], !faulty);
    assert_eq!(
        examined.status.code(),
        Some(i32::from(faulty)),
        "{answer:#}"
    );

    let broken = tool.file("broken.toml", "nonsense = 1\n");
    let examined = tool.run(&["doctor", "--no-canary", "--node-config", &broken]);
    let text = String::from_utf8_lossy(&examined.stdout).into_owned();
    assert_eq!(examined.status.code(), Some(1), "{text}");
    assert!(
        text.contains("nonsense") && text.contains("something is wrong"),
        "{text}"
    );
}

#[test]
fn a_node_without_guests_has_an_empty_table() {
    let tool = Tool::new();
    let node = tool.file(
        "node.toml",
        format!("run = '{}'\n", tool.0.path().join("run").display()),
    );
    let top = ["top", "--interval", "1", "--node-config", &node];
    assert_eq!(tool.json(&top)["guests"], serde_json::json!([]));
    let text = tool.run(&top);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("NAMESPACE") && text.contains("no guests"),
        "{text}"
    );
    tool.refuses(&["top", "--node-config", "none.toml"], 2, &["none.toml"]);
}

/// What a program is called cannot move the cursor of a terminal.
#[test]
fn names_of_others_are_shown_harmlessly() {
    let tool = Tool::new();
    let module = tool.file(
        "app.wat",
        r#"(module (import "a\1b[2J" "b\0d\0ac" (func)) (func (export "_start")))"#,
    );
    let output = tool.run(&["inspect", &module]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("\\u{1b}[2J") && text.contains("b\\r\\nc"),
        "{text}"
    );
    assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
    tool.refuses(&["run", &module], 126, &["\\u{1b}[2J"]);
}
