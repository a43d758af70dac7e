use std::path::Path;

use super::block::add;
use super::*;

fn entry() -> Entry {
    entry_of("sampan")
}

fn entry_of(handler: &str) -> Entry {
    Entry {
        handler: handler.to_owned(),
        shim: Path::new("/opt/sampan/current").join(Scope::of_handler(handler).program()),
        systemd_cgroup: true,
    }
}

#[test]
fn one_handler_has_a_supervisor_for_all_pods() {
    for handler in HANDLERS {
        let entry = entry_of(handler);
        let text = entry.tables(3);
        let dense = text.contains("runtime_type = \"io.containerd.sampan-dense.v1\"\n")
            && text.contains("/current/containerd-shim-sampan-dense-v1\"\n");
        assert_eq!(dense, *handler == "sampan-dense", "{text}");
        let effective = Effective::parse(&text).expect("TOML");
        let runtime = &effective.runtimes().expect("there")[*handler];
        assert!(entry.is(runtime), "{runtime}");
        assert!(lies_in(runtime, Path::new("/opt/sampan/current")));
        assert!(!lies_in(runtime, Path::new("/opt/sampan")));
        // Another scope's handler is not it, whatever it is called.
        let other = HANDLERS
            .iter()
            .find(|other| Scope::of_handler(other) != Scope::of_handler(handler))
            .expect("there are both");
        let renamed = Entry {
            handler: (*other).to_owned(),
            ..entry
        };
        assert!(!renamed.is(runtime), "{runtime}");
    }
}

/// Texts as administrators and distributions write them: comments, no last end of line, Windows' ends of lines, none.
const TEXTS: &[&str] = &[
    "",
    "version = 2\n",
    "version = 2",
    "# only a comment",
    "version = 2\r\n[plugins]\r\n",
    "\n\n  version   =   2 # odd\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = 'p' \n\n\n",
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"x\"\n# end",
];

#[test]
fn a_block_keeps_every_other_byte_and_goes_without_a_trace() {
    for text in TEXTS {
        let tables = entry().tables(2);
        let added = add(text.as_bytes(), &tables).expect("adds");
        assert!(added.starts_with(text.as_bytes()), "{text:?}");
        assert!(holds(&added) && !holds(text.as_bytes()));
        assert_eq!(add(&added, &tables).expect("again"), added, "{text:?}");
        assert_eq!(
            remove(&added).expect("removes"),
            text.as_bytes(),
            "{text:?}"
        );
        assert_eq!(remove(text.as_bytes()).expect("nothing"), text.as_bytes());
        let document = parse(&added).expect("TOML");
        let runtime =
            &document["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]["sampan"];
        assert_eq!(
            runtime["runtime_path"].as_str(),
            Some("/opt/sampan/current/containerd-shim-sampan-v1")
        );
    }
}

#[test]
fn every_prefix_of_a_text_survives_adding_and_removing() {
    let text = TEXTS.concat();
    for length in 0..text.len() {
        let bytes = &text.as_bytes()[..length];
        let added = add(bytes, "[x]\n").expect("adds");
        assert_eq!(remove(&added).expect("removes"), bytes);
    }
}

#[test]
fn what_others_add_behind_the_block_stays() {
    for text in TEXTS {
        let mut added = add(text.as_bytes(), "[x]\n").expect("adds");
        added.extend_from_slice(b"[theirs]\n");
        let left = remove(&added).expect("removes");
        let left = String::from_utf8(left).expect("text");
        assert!(left.starts_with(text) && left.ends_with("\n[theirs]\n") || text.is_empty());
        assert!(!left.contains("sampan"));
        let changed = add(&added, "[y]\n").expect("replaces");
        assert!(!String::from_utf8(changed).expect("text").contains("[x]"));
    }
}

#[test]
fn a_block_without_its_end_is_left_alone() {
    let added = add(b"version = 2\n", "[x]\n").expect("adds");
    let torn = &added[..added.len() - 3];
    assert!(remove(torn).is_err() && add(torn, "[x]\n").is_err());
}

fn place<'a>(config: Option<&'a str>, path: &'a str) -> Place<'a> {
    Place {
        config: config.map(str::as_bytes),
        config_path: Path::new(path),
        drop_in_dir: None,
        template: None,
        newest: 3,
    }
}

fn ways(place: &Place<'_>) -> Vec<(Kind, String)> {
    candidates(place, &[entry()])
        .expect("readable")
        .into_iter()
        .map(|way| (way.kind, way.path.display().to_string()))
        .collect()
}

#[test]
fn drop_ins_come_first_where_they_are_imported() {
    let path = "/etc/containerd/config.toml";
    let both = "version = 3\nimports = ['/etc/containerd/conf.d/*.toml', 'more/*.toml', '/one.toml', '/x/*/*.toml']\n";
    assert_eq!(
        ways(&place(Some(both), path)),
        [
            (
                Kind::DropIn,
                "/etc/containerd/conf.d/sampan.toml".to_owned()
            ),
            (Kind::DropIn, "/etc/containerd/more/sampan.toml".to_owned()),
            (Kind::Block, path.to_owned()),
        ]
    );
    assert_eq!(
        ways(&place(Some("version = 2\n"), path)),
        [(Kind::Block, path.to_owned())]
    );
    let none = candidates(&place(None, path), &[entry()]).expect("readable");
    assert!(none[0].bytes.starts_with(b"version = 3\n"));
}

#[test]
fn the_files_of_distributions_are_theirs_to_merge() {
    let mut place = place(Some("version = 3\n"), "/run/made.toml");
    let template = Path::new("/x/config-v3.toml.tmpl");
    place.template = Some((template, b"{{ template \"base\" . }}\n"));
    let way = &candidates(&place, &[entry()]).expect("readable")[0];
    assert_eq!((way.kind, way.path.as_path()), (Kind::Block, template));
    assert!(way.bytes.starts_with(b"{{ template"));
    // What is asked about is containerd's own file, since it does not read the template.
    let asked = way.asked.0.as_deref().expect("a configuration");
    assert!(asked.starts_with(b"version = 3\n") && holds(asked) && way.asked.1.is_none());
    place.drop_in_dir = Some(Path::new("/etc/k0s/containerd.d"));
    assert_eq!(
        ways(&place),
        [(Kind::DropIn, "/etc/k0s/containerd.d/sampan.toml".to_owned())]
    );
}

#[test]
fn what_cannot_be_read_is_refused() {
    for (text, part) in [
        ("version = 9\n", "version 9"),
        ("version = \n", "parse the configuration"),
        ("a = 1\na = 2\n", "parse the configuration"),
    ] {
        let error = candidates(&place(Some(text), "/c"), &[entry()]).expect_err("wrong");
        let error = error.to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_copy_imports_what_the_original_did() {
    let text = b"imports = ['conf.d/*.toml', '/x.toml']\nversion = 2 # two\n";
    let also = Path::new("/state/sampan.toml");
    let path = Path::new("/etc/containerd/config.toml");
    let copy = relocated(text, path, Some(also), &|_| None);
    let copy = String::from_utf8(copy.expect("TOML")).expect("text");
    assert!(
        copy.contains("[\"/etc/containerd/conf.d/*.toml\", \"/x.toml\", \"/state/sampan.toml\"]"),
        "{copy}"
    );
    assert!(copy.contains("version = 2 # two"));
    let copy = relocated(text, path, None, &|dir| {
        assert_eq!(dir, Path::new("/etc/containerd/conf.d"));
        Some(Vec::new())
    });
    let copy = String::from_utf8(copy.expect("TOML")).expect("text");
    assert!(copy.contains("imports = [\"/x.toml\"]"), "{copy}");
}

fn dump(extra: &str, ours: bool) -> Effective {
    let mut text = format!(
        "version = 3\nimports = ['a']\n[plugins.'io.containerd.cri.v1.runtime']\nx = 1\n{extra}\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'nvidia'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia.options]\nBinaryName = 'n'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nSystemdCgroup = true\n"
    );
    if ours {
        text.push_str(&entry().tables(3));
    }
    Effective::parse(&text).expect("TOML")
}

#[test]
fn only_our_handlers_may_change_what_containerd_reads() {
    let entries = [entry()];
    prove(&dump("", false), &dump("", true), &entries).expect("ours alone");
    assert!(dump("", false).systemd_cgroup());
    let error = |before: &Effective, after: &Effective| {
        prove(before, after, &entries)
            .expect_err("refused")
            .to_string()
    };
    assert!(error(&dump("", false), &dump("y = 2", true)).contains("cri.v1.runtime.y"));
    assert!(error(&dump("y = 1", false), &dump("y = 2", true)).contains("cri.v1.runtime.y"));
    assert!(error(&dump("y = 1", false), &dump("", true)).contains("cri.v1.runtime.y"));
    assert!(error(&dump("", false), &dump("", false)).contains("no handler `sampan`"));
    assert!(error(&dump("", true), &dump("", true)).contains("already"));
}
