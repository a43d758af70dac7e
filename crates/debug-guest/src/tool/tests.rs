use std::fs;
use std::path::Path;

use super::*;

struct Done {
    code: u8,
    output: String,
    errors: String,
}

fn call(arguments: &[&str], facts: Option<&Facts>, input: &str) -> Done {
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let code = run(
        &arguments,
        facts,
        &mut Streams {
            input: &mut input.as_bytes(),
            output: &mut output,
            errors: &mut errors,
        },
    );
    Done {
        code,
        output: String::from_utf8(output).expect("text"),
        errors: String::from_utf8(errors).expect("text"),
    }
}

/// A directory with a file, a hidden one, a directory with a file, and links.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let write = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).expect("a file");
    };
    fs::create_dir(dir.path().join("sub")).expect("a directory");
    write("b.txt", "one\ntwo\nthree\n");
    write(".hidden", "");
    write("sub/deep.txt", "deep\n");
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, dir.path().join(name)).expect("a link");
    };
    link("b.txt", "link");
    link("nowhere", "dangling");
    dir
}

fn at(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn files_are_listed() {
    let dir = tree();
    let root = dir.path().display().to_string();
    let plain = call(&["ls", &root], None, "");
    assert_eq!(
        (plain.code, plain.output.as_str()),
        (0, "b.txt\ndangling\nlink\nsub\n")
    );
    let all = call(&["ls", "-a", &root], None, "");
    assert!(all.output.starts_with(".hidden\nb.txt\n"), "{}", all.output);
    let long = call(&["ls", "-l", &root], None, "");
    assert!(long.output.contains("l "), "{}", long.output);
    assert!(
        long.output.contains("dangling -> nowhere\n"),
        "{}",
        long.output
    );
    assert!(
        long.output.contains(" 14 20"),
        "size, then time: {}",
        long.output
    );
    // A file, and one that does not exist: the rest is listed all the same.
    let mixed = call(
        &["ls", &at(dir.path(), "b.txt"), "/does/not/exist"],
        None,
        "",
    );
    assert_eq!(mixed.code, 2);
    assert!(mixed.output.ends_with("b.txt\n"), "{}", mixed.output);
    assert_eq!(
        mixed.errors,
        "ls: /does/not/exist: No such file or directory\n"
    );
    assert_eq!(call(&["ls", "-z"], None, "").code, 2);
}

#[test]
fn content_is_shown() {
    let dir = tree();
    let file = at(dir.path(), "b.txt");
    assert_eq!(call(&["cat", &file], None, "").output, "one\ntwo\nthree\n");
    assert_eq!(
        call(&["cat", &file, "-"], None, "in").output,
        "one\ntwo\nthree\nin"
    );
    assert_eq!(call(&["cat"], None, "in").output, "in");
    let directory = call(&["cat", &at(dir.path(), "sub"), &file], None, "");
    assert_eq!(directory.code, 1);
    assert!(
        directory.errors.ends_with("sub: Is a directory\n"),
        "{}",
        directory.errors
    );
    assert_eq!(directory.output, "one\ntwo\nthree\n");
    let missing = call(&["cat", "/nope"], None, "");
    assert_eq!(
        (missing.code, missing.errors.as_str()),
        (1, "cat: /nope: No such file or directory\n")
    );

    assert_eq!(
        call(&["head", "-n", "2", &file], None, "").output,
        "one\ntwo\n"
    );
    assert_eq!(call(&["head", "-n2", &file], None, "").output, "one\ntwo\n");
    assert_eq!(call(&["head", "-c", "4", &file], None, "").output, "one\n");
    let deep = at(dir.path(), "sub/deep.txt");
    let two = call(&["head", "-n", "1", &file, &deep], None, "").output;
    assert_eq!(
        two,
        format!("==> {file} <==\none\n\n==> {deep} <==\ndeep\n")
    );
    assert_eq!(call(&["head", "-n", "x", &file], None, "").code, 2);
}

#[test]
fn files_are_told_and_found() {
    let dir = tree();
    let root = dir.path().display().to_string();
    let told = call(
        &["stat", &at(dir.path(), "link"), &at(dir.path(), "b.txt")],
        None,
        "",
    )
    .output;
    assert!(
        told.contains("link -> b.txt\n") && told.contains("symbolic link"),
        "{told}"
    );
    assert!(
        told.contains("Size: 14 bytes, regular file\n") && told.contains("Modify: 20"),
        "{told}"
    );
    assert_eq!(call(&["stat"], None, "").code, 2);
    assert_eq!(call(&["stat", "/nope"], None, "").code, 1);

    let found = call(&["find", &root, "-name", "*.t?t"], None, "");
    assert_eq!(found.output, format!("{root}/b.txt\n{root}/sub/deep.txt\n"));
    let kinds = call(&["find", &root, "-type", "d"], None, "");
    assert_eq!(kinds.output, format!("{root}\n{root}/sub\n"));
    assert_eq!(call(&["find", &root], None, "").output.lines().count(), 7);
    let missing = call(&["find", "/nope"], None, "");
    assert_eq!((missing.code, missing.output.as_str()), (1, ""));
    assert_eq!(call(&["find", "-exec"], None, "").code, 2);
}

#[test]
fn what_the_host_says_is_laid_out() {
    let facts = Facts {
        cwd: "/work".into(),
        preopens: vec![("/".into(), false), ("/data".into(), true)],
        network: vec!["all".into()],
        limits: vec![("memory".into(), "8 bytes".into())],
        usage: vec![
            ("memory".into(), "4 bytes".into()),
            ("pids".into(), "2".into()),
        ],
    };
    let grants = call(&["grants"], Some(&facts), "").output;
    for line in [
        "  /  read only",
        "  /data  read and write",
        "  /work",
        "  PATH",
        "  all",
        "  memory  8 bytes",
    ] {
        assert!(
            grants.lines().any(|found| found == line),
            "{line:?} in {grants}"
        );
    }
    let path = std::env::var("PATH").expect("tests have a PATH");
    assert!(!grants.contains(&path), "values are not shown");
    let top = call(&["top"], Some(&facts), "").output;
    assert_eq!(top, "  memory  4 bytes\n  pids    2\n");
    let untold = call(&["top"], None, "");
    assert_eq!(untold.code, 1);
    assert!(untold.errors.contains("kubectl exec"), "{}", untold.errors);
    assert_eq!(call(&["env", "PATH"], None, "").output.trim_end(), path);
    assert_eq!(call(&["env", "NO_SUCH_VARIABLE"], None, "").code, 1);
}

#[test]
fn other_words_are_refused_with_a_hint() {
    assert_eq!(call(&["help"], None, "").code, 0);
    assert_eq!(call(&[], None, "").code, 2);
    let unknown = call(&["rm", "x"], None, "");
    assert_eq!(unknown.code, 127);
    assert!(
        unknown.errors.contains("rm: no such command"),
        "{}",
        unknown.errors
    );
}
