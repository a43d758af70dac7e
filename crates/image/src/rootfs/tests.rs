use std::fs::{self, Permissions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;

const MODULE: &[u8] = b"\0asm\x01\0\0\0 module";
const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0 native";

/// A rootfs, and beside it what must not be reached.
struct Rootfs(TempDir);

impl Rootfs {
    fn new() -> Self {
        let rootfs = Self(TempDir::new().expect("a directory"));
        fs::create_dir(rootfs.0.path().join("root")).expect("a directory");
        fs::write(rootfs.0.path().join("secret.wasm"), MODULE).expect("written");
        rootfs
    }

    fn put(&self, path: &str, bytes: &[u8]) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, bytes).expect("written");
        self
    }

    fn link(&self, path: &str, to: &str) -> &Self {
        symlink(to, self.path(path)).expect("a link");
        self
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.0
            .path()
            .join("root")
            .join(path.trim_start_matches('/'))
    }

    fn find(&self, entry: &str, cwd: &str, path: Option<&str>) -> Result<Found, EntryError> {
        let root = File::open(self.0.path().join("root")).expect("a directory");
        locate(root.as_fd(), entry, cwd, path)
    }

    #[track_caller]
    fn refused(&self, entry: &str, words: &[&str]) -> EntryError {
        let error = self.find(entry, "/", None).expect_err("refused");
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        for word in words {
            assert!(text.contains(word), "`{text}` lacks `{word}`");
        }
        error
    }
}

#[test]
fn names_are_absolute_relative_or_bare() {
    let rootfs = Rootfs::new();
    rootfs
        .put("app.wasm", MODULE)
        .put("srv/app.wasm", MODULE)
        .put("srv/bin/x.wasm", MODULE);
    for (entry, cwd, expected) in [
        ("/app.wasm", "/srv", "/app.wasm"),
        ("//app.wasm", "/srv", "//app.wasm"),
        ("app.wasm", "/", "/app.wasm"),
        ("app.wasm", "/srv", "/srv/app.wasm"),
        ("app.wasm", "/srv/", "/srv/app.wasm"),
        ("bin/x.wasm", "/srv", "/srv/bin/x.wasm"),
        ("./app.wasm", "/srv", "/srv/./app.wasm"),
        ("../app.wasm", "/srv", "/srv/../app.wasm"),
        ("../../../../app.wasm", "/srv", "/srv/../../../../app.wasm"),
    ] {
        let mut found = rootfs.find(entry, cwd, None).expect(entry);
        assert_eq!(found.path, expected);
        assert_eq!(found.guest, Guest::CoreModule);
        assert_eq!(found.size, MODULE.len() as u64);
        let mut bytes = Vec::new();
        found
            .file
            .read_to_end(&mut bytes)
            .expect("readable, from its beginning");
        assert_eq!(bytes, MODULE);
    }
}

#[test]
fn natives_are_found_on_the_path_and_wasm_in_the_directory_first() {
    let rootfs = Rootfs::new();
    rootfs
        .put("bin/tool", ELF)
        .put("usr/bin/tool", ELF)
        .put("srv/tool", ELF)
        .put("bin/plain", ELF);
    rootfs.put("opt/app.wasm", MODULE);
    fs::set_permissions(rootfs.path("bin/tool"), Permissions::from_mode(0o755)).expect("mode");
    let found = rootfs
        .find("tool", "/srv", None)
        .expect("on the default path");
    assert_eq!(
        (found.path.as_str(), found.guest),
        ("/bin/tool", Guest::Elf)
    );
    let found = rootfs
        .find("app.wasm", "/srv", Some("relative:/missing::/opt/"))
        .expect("there");
    assert_eq!(found.path, "/opt/app.wasm");
    // Neither executable nor wasm, and natives are not looked for in the working directory.
    for name in ["plain", "missing"] {
        let error = rootfs.find(name, "/srv", None).expect_err("refused");
        assert!(matches!(error, EntryError::NotOnPath { .. }), "{error}");
        assert_eq!(error.fault(), Fault::NotFound);
        assert!(error.to_string().contains(name) && error.to_string().contains("/srv"));
    }
    let error = rootfs
        .find("tool", "/srv", Some("/usr/bin"))
        .expect_err("not executable");
    assert!(matches!(error, EntryError::NotOnPath { .. }));
    // With a slash it is the file that is named, and its mode is the kernel's business.
    assert_eq!(
        rootfs.find("./tool", "/srv", None).expect("there").guest,
        Guest::Elf
    );
}

#[test]
fn links_lead_around_inside() {
    let rootfs = Rootfs::new();
    rootfs.put("real/app.wasm", MODULE);
    rootfs
        .link("absolute", "/real/app.wasm")
        .link("relative", "real/app.wasm");
    rootfs
        .link("up", "../../../../real/app.wasm")
        .link("directory", "real");
    for entry in ["/absolute", "/relative", "/up", "/directory/app.wasm"] {
        assert_eq!(
            rootfs.find(entry, "/", None).expect(entry).guest,
            Guest::CoreModule
        );
    }
}

#[test]
fn nothing_outside_is_reached_and_the_link_is_named() {
    let rootfs = Rootfs::new();
    rootfs.put("x/y", b"");
    rootfs
        .link("out", "../secret.wasm")
        .link("away", "..")
        .link("host", "/etc/hostname");
    rootfs
        .link("chain", "out")
        .link("x/deep", "../../secret.wasm");
    for (entry, link, target) in [
        ("/out", "`/out`", "`../secret.wasm`"),
        ("/host", "`/host`", "`/etc/hostname`"),
        ("/chain", "`/chain`", "`out`"),
        ("/x/deep", "`/x/deep`", "`../../secret.wasm`"),
        ("/host/further", "`/host`", "`/etc/hostname`"),
    ] {
        let error = rootfs.refused(entry, &[entry, link, target, "symbolic link"]);
        assert!(matches!(error, EntryError::Dangling { .. }), "{error}");
        assert_eq!(error.fault(), Fault::NotFound);
    }
    for entry in [
        "/away/secret.wasm",
        "/../secret.wasm",
        "../secret.wasm",
        "/x/../../secret.wasm",
    ] {
        let error = rootfs.refused(entry, &["secret.wasm", "does not exist in the image"]);
        assert!(matches!(error, EntryError::NotFound(_)), "{error}");
    }
}

#[test]
fn links_without_end_and_magic_ones_are_refused() {
    let rootfs = Rootfs::new();
    rootfs.link("a", "b").link("b", "a");
    assert!(matches!(rootfs.refused("/a", &["/a"]), EntryError::Loop(_)));
    // The magic links of a proc that somebody mounted in the rootfs would lead out.
    let root = File::open("/proc/self").expect("proc");
    for entry in ["/root/etc/passwd", "/exe"] {
        let error = locate(root.as_fd(), entry, "/", None).expect_err("refused");
        assert!(matches!(error, EntryError::Loop(_)), "{error}");
    }
}

#[test]
fn what_is_no_file_is_named() {
    let rootfs = Rootfs::new();
    rootfs.put("directory/x", b"").put("file", MODULE);
    assert!(matches!(
        rootfs.refused("", &["/app.wasm"]),
        EntryError::Unnamed
    ));
    for entry in ["/", "/directory", "/directory/", "."] {
        let refused = rootfs
            .find(&format!("{entry}/"), "/", None)
            .expect_err("refused");
        assert!(matches!(refused, EntryError::Directory(_)), "{refused}");
    }
    for entry in ["/missing", "/missing/app.wasm", "/file/app.wasm", "/file/"] {
        assert!(matches!(
            rootfs.refused(entry, &[entry]),
            EntryError::NotFound(_)
        ));
    }
    let mode = Mode::from_raw_mode(0o600);
    let pipe = rootfs.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, mode, 0).expect("a pipe");
    assert!(matches!(
        rootfs.refused("/pipe", &["/pipe"]),
        EntryError::Special(_)
    ));
    let socket = rootfs.path("s");
    let _listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket");
    assert!(matches!(
        rootfs.refused("/s", &["/s"]),
        EntryError::Special(_)
    ));
    assert!(matches!(
        rootfs.refused("/a\0b", &["a\\0b"]),
        EntryError::Open { .. }
    ));
    let long = format!("/{}", "x".repeat(5000));
    assert!(matches!(
        rootfs.refused(&long, &["…"]),
        EntryError::Open { .. }
    ));
}

#[test]
fn precompiled_files_are_refused_by_name() {
    let rootfs = Rootfs::new();
    let mut cwasm = ELF.to_vec();
    cwasm[7] = 200;
    rootfs
        .put("app.cwasm", &cwasm)
        .put("disguised.wasm", &cwasm)
        .put("bin/app", &cwasm);
    for (entry, path) in [
        ("/app.cwasm", "/app.cwasm"),
        ("/disguised.wasm", "/disguised.wasm"),
        ("app.cwasm", "/app.cwasm"),
        ("app", "/bin/app"),
    ] {
        let error = rootfs.refused(entry, &[path, "precompiled"]);
        assert!(matches!(error, EntryError::Precompiled(_)));
        assert_eq!(error.fault(), Fault::Invalid);
    }
}

#[test]
fn text_is_told_by_its_beginning_or_its_name() {
    let rootfs = Rootfs::new();
    let comment = format!("{}(module)", ";; long\n".repeat(1000));
    rootfs
        .put("a", b"(module)")
        .put("long.wat", comment.as_bytes())
        .put("long.txt", comment.as_bytes());
    rootfs
        .put("zero.wat", b"\0\0\0")
        .put("empty.wat", b"")
        .put("\u{e9}.wat", comment.as_bytes());
    for (entry, guest) in [
        ("/a", Guest::Text),
        ("/long.wat", Guest::Text),
        ("/\u{e9}.wat", Guest::Text),
        ("/long.txt", Guest::Unknown),
        ("/zero.wat", Guest::Unknown),
        ("/empty.wat", Guest::Unknown),
    ] {
        assert_eq!(
            rootfs.find(entry, "/", None).expect(entry).guest,
            guest,
            "{entry}"
        );
    }
}

#[test]
fn a_guest_that_is_too_large_is_refused_before_it_is_read() {
    let rootfs = Rootfs::new();
    rootfs.put("huge.wasm", MODULE);
    let file = File::options()
        .write(true)
        .open(rootfs.path("huge.wasm"))
        .expect("open");
    file.set_len(GUEST_LIMIT + 1).expect("sparse");
    assert!(matches!(
        rootfs.refused("/huge.wasm", &["536870912"]),
        EntryError::TooLarge { .. }
    ));
}
