use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use plan::Digest;
use tempfile::TempDir;

use super::*;

const FINGERPRINT: &str = "48.0.8-0123456789abcdef";
const NO_LIMIT: Limits = Limits {
    max_bytes: u64::MAX,
};

fn guest(number: u8) -> Digest {
    Digest::new([number; 32])
}

fn store() -> (TempDir, Store) {
    let directory = TempDir::new().expect("a directory");
    let store = Store::open(&directory.path().join("store"), NO_LIMIT).expect("a store");
    (directory, store)
}

/// A whole artifact for the store's eyes: header, content, one section header at the end.
fn elf(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
    bytes[0x28..0x30].copy_from_slice(&(64 + content.len() as u64).to_le_bytes());
    bytes[0x3a..0x3c].copy_from_slice(&64_u16.to_le_bytes());
    bytes[0x3c..0x3e].copy_from_slice(&1_u16.to_le_bytes());
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&[0; 64]);
    bytes
}

fn make(claim: Claim) -> Slot {
    match claim {
        Claim::Make(slot) => slot,
        Claim::Hit(_) => panic!("it was there already"),
    }
}

fn publish(store: &Store, number: u8, content: &[u8]) -> Artifact {
    let slot = make(store.claim(&guest(number), FINGERPRINT).expect("a claim"));
    slot.file().write_all(&elf(content)).expect("written");
    slot.publish().expect("published")
}

fn path_of(store: &Store, number: u8) -> PathBuf {
    store
        .path()
        .join("artifacts")
        .join(FINGERPRINT)
        .join(format!("{}.cwasm", guest(number).hex()))
}

/// Every file below the store but the file of locks.
fn files(store: &Store) -> Vec<PathBuf> {
    fn below(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_dir() {
                below(&entry.path(), found);
            } else if entry.file_name() != LOCK {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    below(store.path(), &mut found);
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the mode is set");
}

fn used_before(store: &Store, number: u8, minutes: u64) {
    let then = SystemTime::now() - Duration::from_secs(60 * minutes);
    File::open(path_of(store, number))
        .and_then(|file| file.set_modified(then))
        .expect("the time is set");
}

#[test]
fn what_is_published_is_found_with_its_bytes_and_for_root_alone() {
    let (_directory, store) = store();
    assert!(
        store
            .lookup(&guest(1), FINGERPRINT)
            .expect("no error")
            .is_none()
    );
    let made = publish(&store, 1, b"code");
    let found = store
        .lookup(&guest(1), FINGERPRINT)
        .expect("no error")
        .expect("there");
    assert_eq!(found.size(), made.size());
    let mut bytes = Vec::new();
    File::from(found.into_descriptor())
        .read_to_end(&mut bytes)
        .expect("readable");
    assert_eq!(bytes, elf(b"code"));
    assert_eq!(mode(&path_of(&store, 1)), 0o444);
    assert_eq!(mode(store.path()), 0o700);
    assert_eq!(mode(path_of(&store, 1).parent().expect("a parent")), 0o700);
    assert!(matches!(
        store.claim(&guest(1), FINGERPRINT).expect("a claim"),
        Claim::Hit(_)
    ));
    assert!(matches!(
        store
            .try_claim(&guest(1), "48.0.9-0123456789abcdef")
            .expect("a claim"),
        Some(Claim::Make(_))
    ));
    // A second supervisor, another open.
    let again = Store::open(store.path(), NO_LIMIT).expect("a store");
    assert!(
        again
            .lookup(&guest(1), FINGERPRINT)
            .expect("no error")
            .is_some()
    );
}

#[test]
fn an_artifact_cannot_be_written_through_its_descriptor() {
    let (_directory, store) = store();
    let made = publish(&store, 1, b"code");
    let written = File::from(made.into_descriptor()).write(b"x");
    assert!(written.is_err());
}

#[test]
fn a_slot_that_is_dropped_leaves_nothing_and_lets_the_next_one_make_it() {
    let (_directory, store) = store();
    for named in [false, true] {
        let mut slot = make(store.claim(&guest(1), FINGERPRINT).expect("a claim"));
        if named {
            slot = slot.with_named_file().expect("a file");
            assert_eq!(files(&store).len(), 1);
        }
        slot.file().write_all(b"half").expect("written");
        assert!(
            store
                .try_claim(&guest(1), FINGERPRINT)
                .expect("no error")
                .is_none()
        );
        drop(slot);
        assert!(files(&store).is_empty());
    }
    drop(publish(&store, 1, b"code"));
}

#[test]
fn without_nameless_files_it_works_the_same() {
    let (_directory, store) = store();
    let slot = make(store.claim(&guest(1), FINGERPRINT).expect("a claim"));
    let slot = slot.with_named_file().expect("a file");
    slot.file().write_all(&elf(b"code")).expect("written");
    assert_eq!(
        store.sweep_stale().expect("swept"),
        0,
        "it is being written"
    );
    let _made = slot.publish().expect("published");
    assert_eq!(files(&store), [path_of(&store, 1)]);
    assert!(
        store
            .lookup(&guest(1), FINGERPRINT)
            .expect("no error")
            .is_some()
    );
}

#[test]
fn what_is_not_whole_is_not_published() {
    let (_directory, store) = store();
    let whole = elf(b"some code");
    let zeroed = vec![0; whole.len()];
    for bytes in [
        &whole[..0],
        &whole[..63],
        &whole[..64],
        &whole[..whole.len() - 1],
        &zeroed,
    ] {
        let slot = make(store.claim(&guest(1), FINGERPRINT).expect("a claim"));
        slot.file().write_all(bytes).expect("written");
        let error = slot.publish().expect_err("not whole");
        assert!(matches!(error, StoreError::Incomplete { .. }), "{error}");
        assert!(error.to_string().contains(&guest(1).to_string()));
    }
    assert!(files(&store).is_empty());
}

#[test]
fn what_broke_on_the_disk_is_made_again() {
    let (_directory, store) = store();
    drop(publish(&store, 1, b"code"));
    let path = path_of(&store, 1);
    for length in [0, 10, 64, 100] {
        chmod(&path, 0o600);
        File::options()
            .write(true)
            .open(&path)
            .and_then(|f| f.set_len(length))
            .expect("cut");
        assert!(
            store
                .lookup(&guest(1), FINGERPRINT)
                .expect("no error")
                .is_none(),
            "{length}"
        );
        drop(publish(&store, 1, b"code"));
        assert!(
            store
                .lookup(&guest(1), FINGERPRINT)
                .expect("no error")
                .is_some()
        );
    }
}

#[test]
fn a_header_cannot_lie_beyond_numbers() {
    let (_directory, store) = store();
    let mut bytes = elf(b"code");
    bytes[0x28..0x30].copy_from_slice(&u64::MAX.to_le_bytes());
    bytes[0x3a..0x3e].copy_from_slice(&[0xff; 4]);
    let slot = make(store.claim(&guest(1), FINGERPRINT).expect("a claim"));
    slot.file().write_all(&bytes).expect("written");
    assert!(matches!(slot.publish(), Err(StoreError::Incomplete { .. })));
}

#[test]
fn what_the_engine_refuses_is_taken_out() {
    let (_directory, store) = store();
    let held = publish(&store, 1, b"code");
    store.discard(&guest(1), FINGERPRINT).expect("discarded");
    store
        .discard(&guest(1), FINGERPRINT)
        .expect("it is gone already");
    store.discard(&guest(1), "another").expect("it never was");
    assert!(
        store
            .lookup(&guest(1), FINGERPRINT)
            .expect("no error")
            .is_none()
    );
    drop(held);
}

#[track_caller]
fn assert_untrusted<T: std::fmt::Debug>(result: Result<T, StoreError>, path: &Path, word: &str) {
    let error = result.expect_err("not to be trusted");
    let text = error.to_string();
    assert!(matches!(error, StoreError::Untrusted { .. }), "{text}");
    assert!(
        text.contains(&path.display().to_string()) && text.contains(word),
        "{text}"
    );
    assert!(!text.contains('\n'));
    assert_eq!(error.fault(), Fault::Precondition);
}

#[test]
fn directories_that_others_could_change_are_refused() {
    let directory = TempDir::new().expect("a directory");
    let root = directory.path().join("a/store");
    let owner = rustix::process::geteuid().as_raw();
    Store::open(&root, NO_LIMIT).expect("a store");

    assert_untrusted(
        Store::open_as(&root, NO_LIMIT, owner + 1),
        if owner == 0 { &root } else { directory.path() },
        "belongs to user",
    );
    for mode in [0o770, 0o702, 0o1777] {
        chmod(&root, mode);
        assert_untrusted(Store::open(&root, NO_LIMIT), &root, "write");
    }
    chmod(&root, 0o700);
    chmod(&root.join("artifacts"), 0o777);
    assert_untrusted(
        Store::open(&root, NO_LIMIT),
        &root.join("artifacts"),
        "write",
    );
    chmod(&root.join("artifacts"), 0o700);

    let above = directory.path().join("a");
    chmod(&above, 0o777);
    assert_untrusted(Store::open(&root, NO_LIMIT), &above, "replace");
    chmod(&above, 0o1777);
    Store::open(&root, NO_LIMIT).expect("shared as /tmp is");
    chmod(&above, 0o755);

    let link = directory.path().join("link");
    symlink(&above, &link).expect("a link");
    assert_untrusted(
        Store::open(&link.join("store"), NO_LIMIT),
        &link,
        "symbolic link",
    );
    let link = directory.path().join("a/link");
    symlink(&root, &link).expect("a link");
    assert_untrusted(Store::open(&link, NO_LIMIT), &link, "symbolic link");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("a file");
    assert_untrusted(Store::open(&file, NO_LIMIT), &file, "no directory");
}

#[test]
fn a_store_needs_an_absolute_plain_path() {
    for path in ["", "/", "store", "./store", "/tmp/../store", "../store"] {
        let error = Store::open(Path::new(path), NO_LIMIT).expect_err(path);
        assert!(matches!(error, StoreError::Path(_)), "{error}");
    }
}

#[test]
fn files_that_others_could_change_are_refused() {
    let (directory, store) = store();
    drop(publish(&store, 1, b"code"));
    let path = path_of(&store, 1);
    for mode in [0o620, 0o602] {
        chmod(&path, mode);
        assert_untrusted(store.lookup(&guest(1), FINGERPRINT), &path, "write");
        assert_untrusted(store.claim(&guest(1), FINGERPRINT), &path, "write");
    }
    fs::remove_file(&path).expect("removed");

    let elsewhere = directory.path().join("evil.cwasm");
    fs::write(&elsewhere, elf(b"evil")).expect("written");
    symlink(&elsewhere, &path).expect("a link");
    assert_untrusted(store.lookup(&guest(1), FINGERPRINT), &path, "symbolic link");
    fs::remove_file(&path).expect("removed");

    fs::create_dir(&path).expect("a directory");
    chmod(&path, 0o700);
    assert_untrusted(
        store.lookup(&guest(1), FINGERPRINT),
        &path,
        "no regular file",
    );
    fs::remove_dir(&path).expect("removed");

    // A pipe must not hold anybody up.
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a pipe");
    assert_untrusted(
        store.lookup(&guest(1), FINGERPRINT),
        &path,
        "no regular file",
    );
    fs::remove_file(&path).expect("removed");

    let parent = path.parent().expect("a parent");
    chmod(parent, 0o777);
    assert_untrusted(store.lookup(&guest(1), FINGERPRINT), parent, "write");
    chmod(parent, 0o700);
    let moved = directory.path().join("moved");
    fs::rename(parent, &moved).expect("moved");
    symlink(&moved, parent).expect("a link");
    assert_untrusted(
        store.lookup(&guest(1), FINGERPRINT),
        parent,
        "symbolic link",
    );
}

#[test]
fn a_fingerprint_is_one_plain_name() {
    let (_directory, store) = store();
    for fingerprint in ["", "..", "../x", "a/b", "/etc", "x y"] {
        assert!(matches!(
            store.lookup(&guest(1), fingerprint),
            Err(StoreError::Name(_))
        ));
        assert!(matches!(
            store.claim(&guest(1), fingerprint),
            Err(StoreError::Name(_))
        ));
        assert!(matches!(
            store.discard(&guest(1), fingerprint),
            Err(StoreError::Name(_))
        ));
    }
}

#[test]
fn of_many_threads_one_makes_it() {
    let (_directory, store) = store();
    const THREADS: usize = 32;
    let barrier = Barrier::new(THREADS);
    let makes = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                let artifact = match store.claim(&guest(1), FINGERPRINT).expect("a claim") {
                    Claim::Hit(artifact) => artifact,
                    Claim::Make(slot) => {
                        makes.fetch_add(1, Ordering::SeqCst);
                        slot.file().write_all(&elf(b"code")).expect("written");
                        slot.publish().expect("published")
                    }
                };
                assert_eq!(artifact.size(), elf(b"code").len() as u64);
            });
        }
    });
    assert_eq!(makes.into_inner(), 1);
    assert_eq!(files(&store), [path_of(&store, 1)]);
}

#[test]
fn keys_do_not_wait_for_each_other() {
    let (_directory, store) = store();
    let one = make(store.claim(&guest(1), FINGERPRINT).expect("a claim"));
    let two = make(store.claim(&guest(2), FINGERPRINT).expect("a claim"));
    let three = make(store.claim(&guest(1), "another").expect("a claim"));
    drop((one, two, three));
}

#[test]
fn a_failed_make_passes_to_one_waiter_at_a_time() {
    let (_directory, store) = store();
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let slot = make(store.claim(&guest(1), FINGERPRINT).expect("a claim"));
                assert_eq!(
                    inside.fetch_add(1, Ordering::SeqCst),
                    0,
                    "alone with the key"
                );
                std::thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(slot);
            });
        }
    });
    assert!(files(&store).is_empty());
}

/// Runs [`in_a_child`] in another process of this very program.
fn child(role: &str, store: &Path) -> Child {
    Command::new(std::env::current_exe().expect("our own program"))
        .args([
            "--exact",
            "tests::in_a_child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("SAMPAN_STORE_ROLE", role)
        .env("SAMPAN_STORE_PATH", store)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child")
}

/// Waits for a line of the child that has a word of ours in it; the rest of its output stays
/// readable, so that it can end well.
fn expect(child: &mut Child, words: &[&str]) -> String {
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let line = output
        .by_ref()
        .lines()
        .map(|line| line.expect("text"))
        .find(|line| words.iter().any(|word| line.contains(word)))
        .expect("the child says it");
    child.stdout = Some(output.into_inner());
    line
}

#[test]
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn in_a_child() {
    let Ok(role) = std::env::var("SAMPAN_STORE_ROLE") else {
        return;
    };
    let path = std::env::var_os("SAMPAN_STORE_PATH").expect("a path");
    let opened = Store::open(Path::new(&path), NO_LIMIT);
    if role == "full" {
        // Enough inodes for directories, no space for content.
        let error = opened
            .and_then(|store| match store.claim(&guest(1), FINGERPRINT)? {
                Claim::Hit(_) => panic!("it is there"),
                Claim::Make(slot) => {
                    let mut bytes = elf(&vec![7; 1 << 20]);
                    bytes.truncate(1 << 20);
                    let source = slot.file().write_all(&bytes).expect_err("full");
                    Err::<(), _>(StoreError::io("write", store.path(), source))
                }
            })
            .expect_err("full");
        println!("@ERROR {:?} {error}", error.fault());
        return;
    }
    if role == "claim-error" {
        let error = opened
            .and_then(|store| store.claim(&guest(1), FINGERPRINT))
            .expect_err("refused");
        println!("@ERROR {:?} {error}", error.fault());
        return;
    }
    let store = opened.expect("a store");
    match (
        role.as_str(),
        store.claim(&guest(1), FINGERPRINT).expect("a claim"),
    ) {
        ("race", Claim::Hit(_)) => println!("@HIT"),
        ("race", Claim::Make(slot)) => {
            slot.file().write_all(&elf(b"code")).expect("written");
            slot.publish().expect("published");
            println!("@MADE");
        }
        ("hold" | "hold-named", Claim::Make(mut slot)) => {
            if role == "hold-named" {
                slot = slot.with_named_file().expect("a file");
            }
            slot.file().write_all(&elf(b"code")[..70]).expect("written");
            println!("@HELD");
            let _ = std::io::stdin().read(&mut [0]);
        }
        (role, claim) => panic!("{role} got {claim:?}"),
    }
}

#[test]
fn of_many_processes_one_makes_it() {
    let (_directory, store) = store();
    let mut children: Vec<_> = (0..8).map(|_| child("race", store.path())).collect();
    let said: Vec<_> = children
        .iter_mut()
        .map(|child| expect(child, &["@HIT", "@MADE"]))
        .collect();
    for mut child in children {
        drop(child.stdin.take());
        assert!(child.wait().expect("ended").success());
    }
    assert_eq!(
        said.iter().filter(|line| line.contains("@MADE")).count(),
        1,
        "{said:?}"
    );
    assert_eq!(files(&store), [path_of(&store, 1)]);
}

#[test]
fn a_maker_that_is_killed_holds_nobody_up_and_leaves_nothing() {
    let (_directory, store) = store();
    for role in ["hold", "hold-named"] {
        let mut maker = child(role, store.path());
        expect(&mut maker, &["@HELD"]);
        assert!(
            store
                .try_claim(&guest(1), FINGERPRINT)
                .expect("no error")
                .is_none()
        );
        // Somebody who waits already gets it, too.
        let waiting = store.clone();
        let waiter = std::thread::spawn(move || {
            drop(make(
                waiting.claim(&guest(1), FINGERPRINT).expect("a claim"),
            ));
        });
        maker.kill().expect("killed");
        maker.wait().expect("ended");
        waiter.join().expect("no panic");
        let left = files(&store).len();
        assert_eq!(
            left,
            usize::from(role == "hold-named"),
            "only a named file can be left"
        );
        assert_eq!(store.sweep_stale().expect("swept"), left);
        assert!(files(&store).is_empty());
        let slot = make(store.claim(&guest(1), FINGERPRINT).expect("a claim"));
        drop(slot);
    }
    drop(publish(&store, 1, b"code"));
    assert_eq!(files(&store), [path_of(&store, 1)]);
}

#[test]
fn eviction_takes_the_longest_unused_first() {
    let (_directory, store) = store();
    for number in 1..=4 {
        drop(publish(&store, number, &[number; 872]));
        used_before(&store, number, 100 - u64::from(number));
    }
    // A use makes it the youngest.
    drop(store.lookup(&guest(1), FINGERPRINT).expect("no error"));
    let done = store.evict(2000).expect("evicted");
    assert_eq!(
        done,
        Evicted {
            files: 2,
            bytes: 2000,
            kept_bytes: 2000,
            held: 0
        }
    );
    let left: Vec<_> = (1..=4).filter(|n| path_of(&store, *n).exists()).collect();
    assert_eq!(left, [1, 4]);
    assert_eq!(store.evict(0).expect("evicted").kept_bytes, 0);
    assert!(!path_of(&store, 1).parent().expect("a parent").exists());
}

#[test]
fn what_is_in_use_is_never_evicted() {
    let (_directory, store) = store();
    let held = publish(&store, 1, b"code");
    let another = publish(&store, 2, b"code");
    let done = store.evict(0).expect("evicted");
    assert_eq!((done.files, done.held), (0, 2));
    drop(another);
    let done = store.evict(0).expect("evicted");
    assert_eq!((done.files, done.held), (1, 1));

    // A process that inherited the descriptor holds it, when its parent let go.
    let inherited = held.descriptor().try_clone_to_owned().expect("a copy");
    let mut runner = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::from(inherited))
        .spawn()
        .expect("a process");
    drop(held);
    assert_eq!(store.evict(0).expect("evicted").held, 1);
    assert!(path_of(&store, 1).exists());
    runner.kill().expect("killed");
    runner.wait().expect("ended");
    assert_eq!(store.evict(0).expect("evicted").files, 1);
    assert!(files(&store).is_empty());
}

#[test]
fn what_is_being_made_is_not_disturbed_by_eviction() {
    let (_directory, store) = store();
    drop(publish(&store, 1, b"code"));
    let slot = make(store.claim(&guest(2), FINGERPRINT).expect("a claim"));
    slot.file().write_all(&elf(b"code")).expect("written");
    // Takes the fingerprint's directory away.
    assert_eq!(store.evict(0).expect("evicted").files, 1);
    let made = slot.publish().expect("published");
    assert!(path_of(&store, 2).exists());
    drop(made);
}

#[test]
fn an_artifact_in_hand_is_in_the_store_whatever_is_evicted_meanwhile() {
    let (_directory, store) = store();
    let users = AtomicUsize::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (store, users) = (&store, &users);
            scope.spawn(move || {
                for round in 0..25 {
                    let number = (thread + round) % 3;
                    let held = match store.claim(&guest(number), FINGERPRINT).expect("a claim") {
                        Claim::Hit(artifact) => artifact,
                        Claim::Make(slot) => {
                            slot.file().write_all(&elf(&[number])).expect("written");
                            slot.publish().expect("published")
                        }
                    };
                    let name = fs::metadata(path_of(store, number)).expect("it has its name");
                    let ours = rustix::fs::fstat(held.descriptor()).expect("open");
                    assert_eq!(name.ino(), ours.st_ino);
                }
                users.fetch_sub(1, Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            while users.load(Ordering::SeqCst) > 0 {
                store.evict(0).expect("evicted");
            }
        });
    });
}

/// The eviction that has an artifact in hand when a lookup comes, step by step.
#[test]
fn a_lookup_that_waits_for_an_eviction_finds_nothing() {
    let (_directory, store) = store();
    drop(publish(&store, 1, b"code"));
    let path = path_of(&store, 1);
    let inode = format!(":{} ", fs::metadata(&path).expect("there").ino());
    let evictor = File::open(&path).expect("open");
    // A child that another test forks at this moment has a copy of the last holder's descriptor until it executes.
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while artifact::is_held(&evictor).expect("locked") {
        assert!(std::time::Instant::now() < end, "somebody holds it");
        std::thread::yield_now();
    }
    std::thread::scope(|scope| {
        let lookup = scope.spawn(|| store.lookup(&guest(1), FINGERPRINT).expect("no error"));
        // The kernel lists who waits for a lock with an arrow (proc(5), /proc/locks).
        while !fs::read_to_string("/proc/locks")
            .expect("locks")
            .lines()
            .any(|line| line.contains("->") && line.contains(&inode))
        {
            assert!(!lookup.is_finished(), "it did not wait");
            std::thread::yield_now();
        }
        fs::remove_file(&path).expect("removed");
        drop(evictor);
        assert!(lookup.join().expect("no panic").is_none());
    });
}

#[test]
fn publishing_keeps_the_store_below_its_limit() {
    let directory = TempDir::new().expect("a directory");
    let limits = Limits { max_bytes: 2500 };
    let store = Store::open(&directory.path().join("store"), limits).expect("a store");
    for number in 1..=5 {
        drop(publish(&store, number, &[number; 872]));
        used_before(&store, number, 100 - u64::from(number));
    }
    let left: Vec<_> = (1..=5).filter(|n| path_of(&store, *n).exists()).collect();
    assert_eq!(left, [4, 5]);
    // One that is larger than all is allowed stays while it is used.
    let large = publish(&store, 6, &[6; 4000]);
    assert!(path_of(&store, 6).exists());
    drop(large);
}

#[test]
fn strangers_in_the_store_are_left_alone() {
    let (directory, store) = store();
    let artifacts = store.path().join("artifacts");
    fs::write(artifacts.join("README"), "x").expect("written");
    fs::create_dir(artifacts.join("empty.of-another")).expect("a directory");
    symlink(directory.path(), artifacts.join("link")).expect("a link");
    drop(publish(&store, 1, b"code"));
    fs::write(path_of(&store, 1).with_file_name("x.cwasm"), "x").expect("written");
    assert_eq!(store.evict(0).expect("evicted").files, 1);
    assert!(artifacts.join("README").exists());
    assert!(path_of(&store, 1).with_file_name("x.cwasm").exists());
}

#[test]
fn a_use_counts_to_the_minute_and_does_not_write_each_time() {
    let (_directory, store) = store();
    drop(publish(&store, 1, b"code"));
    used_before(&store, 1, 10);
    let modified = || {
        fs::metadata(path_of(&store, 1))
            .expect("there")
            .modified()
            .expect("a time")
    };
    let before = modified();
    drop(store.lookup(&guest(1), FINGERPRINT).expect("no error"));
    let used = modified();
    assert!(used > before + Duration::from_secs(300));
    drop(store.lookup(&guest(1), FINGERPRINT).expect("no error"));
    assert_eq!(modified(), used);
}

#[test]
fn notes_are_kept_replaced_and_bounded() {
    let (_directory, store) = store();
    assert_eq!(store.note("fingerprint-1").expect("no error"), None);
    store.keep_note("fingerprint-1", "a").expect("kept");
    store.keep_note("fingerprint-1", "b").expect("kept");
    assert_eq!(
        store.note("fingerprint-1").expect("no error").as_deref(),
        Some("b")
    );
    assert_eq!(files(&store).len(), 1);
    assert!(matches!(store.note("../x"), Err(StoreError::Name(_))));
    assert!(matches!(
        store.keep_note("../x", ""),
        Err(StoreError::Name(_))
    ));
    let long = "x".repeat(4097);
    assert!(matches!(
        store.keep_note("long", &long),
        Err(StoreError::Note { size: 4097, .. })
    ));
    let path = store.path().join("notes/fingerprint-1");
    fs::write(&path, &long).expect("written");
    assert!(matches!(
        store.note("fingerprint-1"),
        Err(StoreError::Note { .. })
    ));
    chmod(&path, 0o666);
    assert_untrusted(store.note("fingerprint-1"), &path, "write");
}

#[test]
fn what_a_dead_writer_of_notes_left_is_swept() {
    let (_directory, store) = store();
    store.keep_note("n", "a").expect("kept");
    let notes = store.path().join("notes");
    let (old, young) = (notes.join(".n.1.1.tmp"), notes.join(".n.2.2.tmp"));
    for path in [&old, &young] {
        fs::write(path, "half").expect("written");
    }
    let then = SystemTime::now() - Duration::from_secs(2 * 3600);
    for path in [&old, &notes.join("n")] {
        File::open(path)
            .and_then(|file| file.set_modified(then))
            .expect("the time is set");
    }
    assert_eq!(store.sweep_stale().expect("swept"), 1);
    assert!(!old.exists() && young.exists());
    assert_eq!(store.note("n").expect("no error").as_deref(), Some("a"));
}

#[test]
fn notes_written_by_many_are_never_mixed() {
    let (_directory, store) = store();
    std::thread::scope(|scope| {
        for text in ["a", "b", "c", "d"] {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..20 {
                    store.keep_note("n", &text.repeat(1000)).expect("kept");
                    let read = store.note("n").expect("no error").expect("there");
                    assert!(read.len() == 1000 && read.bytes().all(|b| b == read.as_bytes()[0]));
                }
            });
        }
    });
    assert_eq!(files(&store).len(), 1);
}

/// Runs a child on a file system of its own, which needs root; says so where there is none.
#[expect(clippy::print_stderr, reason = "a test that cannot run says why")]
fn on_its_own_file_system(options: &str, prepare: &str, role: &str) -> Option<String> {
    let directory = TempDir::new().expect("a directory");
    let script = format!(
        "mount -t tmpfs -o {options} tmpfs \"$SAMPAN_STORE_PATH\" && {prepare} && echo @MOUNTED && exec \"$@\""
    );
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(std::env::current_exe().expect("our own program"))
        .args([
            "--exact",
            "tests::in_a_child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("SAMPAN_STORE_ROLE", role)
        .env("SAMPAN_STORE_PATH", directory.path())
        .output();
    let text = output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    if !text.contains("@MOUNTED") {
        eprintln!("skipped: a file system of its own needs root");
        return None;
    }
    let line = text
        .lines()
        .find(|line| line.contains("@ERROR"))
        .expect("an error");
    assert!(
        line.contains(&directory.path().display().to_string()),
        "{line}"
    );
    Some(line.to_owned())
}

#[test]
fn a_full_disk_is_named() {
    if let Some(line) = on_its_own_file_system("mode=700,size=64k", "true", "full") {
        assert!(
            line.contains("Exhausted") && line.contains("max-bytes"),
            "{line}"
        );
    }
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let mounted = "$SAMPAN_STORE_PATH";
    let made = format!("mkdir -m 700 \"{mounted}/artifacts\" && mount -o remount,ro \"{mounted}\"");
    for prepare in [format!("mount -o remount,ro \"{mounted}\""), made] {
        if let Some(line) = on_its_own_file_system("mode=700", &prepare, "claim-error") {
            assert!(
                line.contains("Precondition") && line.contains("path of [store]"),
                "{line}"
            );
        }
    }
}

#[test]
fn a_held_descriptor_can_be_given_away() {
    fn can_move<T: Send + 'static>(_: &T) {}
    let (_directory, store) = store();
    let artifact = publish(&store, 1, b"code");
    can_move(&artifact);
    can_move(&store);
    can_move(&make(store.claim(&guest(2), FINGERPRINT).expect("a claim")));
    assert!(artifact.descriptor().as_fd().try_clone_to_owned().is_ok());
}

#[test]
fn what_lies_in_a_store_is_listed_with_what_is_wrong_with_it() {
    let (directory, store) = store();
    let held = publish(&store, 1, b"held");
    for number in 2..=4 {
        drop(publish(&store, number, b"code"));
    }
    used_before(&store, 2, 90);
    fs::remove_file(path_of(&store, 3)).expect("removed");
    fs::write(path_of(&store, 3), b"short").expect("written");
    chmod(&path_of(&store, 3), 0o444);
    chmod(&path_of(&store, 4), 0o666);
    let artifacts = store.path().join("artifacts");
    let strays = [
        artifacts.join(FINGERPRINT).join("notes.txt"),
        artifacts.join("a-file"),
    ];
    for stray in &strays {
        fs::write(stray, b"x").expect("written");
    }

    let found = Store::existing(store.path(), NO_LIMIT)
        .expect("trusted")
        .expect("there")
        .inventory()
        .expect("listed");
    let seen: Vec<_> = found
        .entries
        .iter()
        .map(|entry| {
            let flaw = entry.flaw.as_ref().map(ToString::to_string);
            (entry.guest, entry.held, flaw.unwrap_or_default())
        })
        .collect();
    assert_eq!(seen[0], (guest(1), true, String::new()));
    assert_eq!(seen[1], (guest(2), false, String::new()));
    assert_eq!(
        seen[2],
        (
            guest(3),
            false,
            "it is broken: it is shorter than a header".to_owned()
        )
    );
    assert_eq!(seen[3].0, guest(4));
    assert!(seen[3].2.contains("others may write it"), "{seen:?}");
    assert_eq!(found.strays, strays);
    let age = found.entries[1].used.elapsed().expect("in the past");
    assert!(age > Duration::from_secs(80 * 60), "listing is no use");
    drop(
        store
            .peek(&guest(2), FINGERPRINT)
            .expect("trusted")
            .expect("there"),
    );
    let again = store.inventory().expect("listed").entries[1].used;
    assert_eq!(again, found.entries[1].used, "a peek is no use");
    drop(held);

    let none = directory.path().join("none");
    assert!(
        Store::existing(&none, NO_LIMIT)
            .expect("nothing wrong")
            .is_none()
    );
    assert!(!none.exists(), "looking makes nothing");
    let link = directory.path().join("link");
    symlink(store.path(), &link).expect("linked");
    assert_untrusted(Store::existing(&link, NO_LIMIT), &link, "symbolic link");
}
