use std::os::unix::fs::MetadataExt as _;

use super::*;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("list")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn what_replaces_a_file_has_its_mode_and_goes_by_a_rename() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.toml");
    fs::write(&path, "old").expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
    let before = Facts::of(&path).expect("read").expect("there");
    let inode = fs::metadata(&path).expect("there").ino();

    keep(&path).expect("keep");
    write(&path, b"new", || {
        assert_eq!(fs::read(&path).expect("still there"), b"old");
    })
    .expect("write");
    assert_eq!(fs::read(&path).expect("there"), b"new");
    assert_eq!(Facts::of(&path).expect("read").expect("there").mode, 0o640);

    put_back(&path, Some(&before)).expect("put back");
    assert_eq!(Facts::of(&path).expect("read"), Some(before.clone()));
    assert_eq!(fs::metadata(&path).expect("there").ino(), inode);
    assert_eq!(names(dir.path()), ["config.toml"]);
    put_back(&path, Some(&before)).expect("twice is as once");
}

#[test]
fn that_there_was_none_is_put_back_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("sampan.toml");
    keep(&path).expect("keep");
    write(&path, b"new", || ()).expect("write");
    assert_eq!(Facts::of(&path).expect("read").expect("there").mode, 0o644);
    put_back(&path, None).expect("put back");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_failed_write_leaves_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("taken");
    fs::create_dir(&path).expect("make");
    write(&path, b"new", || ()).expect_err("a directory is no file");
    assert_eq!(names(dir.path()), ["taken"]);
}

#[test]
fn what_was_kept_is_put_back_only_if_it_is_that() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.toml");
    fs::write(&path, "old").expect("write");
    let before = Facts::of(&path).expect("read").expect("there");
    write(&path, b"new", || ()).expect("write");
    let error = put_back(&path, Some(&before)).expect_err("nothing was kept");
    assert!(format!("{error:#}").contains("by hand"), "{error:#}");
    assert_eq!(fs::read(&path).expect("there"), b"new");
}

#[test]
fn directories_that_were_not_there_are_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a/b");
    assert_eq!(
        make(&path).expect("make"),
        [dir.path().join("a"), path.clone()]
    );
    assert!(make(&path).expect("twice").is_empty());
    fs::write(path.join("file"), "").expect("write");
    assert!(!remove_empty(&path).expect("not empty"));
    fs::remove_file(path.join("file")).expect("remove");
    assert!(remove_empty(&path).expect("empty"));
    assert!(!remove_empty(&path).expect("gone"));
}

#[test]
fn a_link_is_swapped() {
    let dir = tempfile::tempdir().expect("a directory");
    let link = dir.path().join("current");
    assert_eq!(pointed(&link).expect("none"), None);
    for target in ["one", "two"] {
        point(&link, Path::new(target)).expect("point");
        assert_eq!(pointed(&link).expect("there"), Some(target.into()));
    }
    assert_eq!(names(dir.path()), ["current"]);
}
