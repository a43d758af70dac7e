//! The runner's side: a guest that does what its first argument says, and answers on standard
//! output.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;

use jail::{Door, Refusal, RefusalKind};

pub(crate) fn run() {
    let door = Door::open().expect("started by the tests");
    let guest = door.launch().guest.clone();
    if guest.args[0] == "refuse" {
        door.refuse(Refusal {
            kind: RefusalKind::MissingImport,
            message: "no such import".to_owned(),
        });
    }
    let mut artifact = String::new();
    door.artifact()
        .read_to_string(&mut artifact)
        .expect("the artifact is readable");
    let Ok(mut inside) = door.enter() else {
        std::process::exit(125)
    };
    jail::end_on_signals(guest.args[0] == "serve");
    inside.ready().expect("the supervisor is there");
    if inside.wait_for_go().is_err() {
        std::process::exit(7);
    }
    for action in &guest.args {
        let (action, argument) = action.split_once(' ').unwrap_or((action, ""));
        let answer = act(action, argument, &artifact);
        println!("{action} {argument}: {answer}");
    }
    std::io::stdout().flush().expect("written");
    std::process::exit(42);
}

fn act(action: &str, argument: &str, artifact: &str) -> String {
    let told = |result: std::io::Result<String>| match result {
        Ok(text) => text,
        Err(error) => match error.kind() {
            ErrorKind::NotFound => "not found".to_owned(),
            ErrorKind::ReadOnlyFilesystem => "read-only".to_owned(),
            ErrorKind::PermissionDenied => "denied".to_owned(),
            _ => error.to_string(),
        },
    };
    match action {
        "report" => artifact.to_owned(),
        "list" => told(fs::read_dir(argument).and_then(|entries| {
            let mut names = entries
                .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
                .collect::<Result<Vec<_>, _>>()?;
            names.sort();
            Ok(names.join(","))
        })),
        "read" => told(fs::read_to_string(argument)),
        "write" => told(fs::write(argument, "written").map(|()| "written".to_owned())),
        "mode" => {
            use std::os::unix::fs::MetadataExt;
            told(
                fs::metadata(argument).map(|data| {
                    format!("{:o} {} {}", data.mode() & 0o7777, data.uid(), data.gid())
                }),
            )
        }
        "thread" => std::thread::spawn(|| "ran".to_owned())
            .join()
            .expect("joined"),
        "socket" => told(std::net::UdpSocket::bind("127.0.0.1:0").map(|_| "bound".to_owned())),
        "netlink" => {
            use rustix::net::{AddressFamily, SocketType, socket};
            told(
                socket(AddressFamily::NETLINK, SocketType::DGRAM, None)
                    .map(|_| "made".to_owned())
                    .map_err(Into::into),
            )
        }
        "execute" => told(
            std::process::Command::new(argument)
                .status()
                .map(|_| "executed".to_owned()),
        ),
        "mount" => {
            let mounted = rustix::mount::mount(
                c"none",
                c"/",
                c"tmpfs",
                rustix::mount::MountFlags::empty(),
                None,
            );
            told(mounted.map(|()| "mounted".to_owned()).map_err(Into::into))
        }
        "hostname" => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        "fill" => {
            // More than the cgroup allows.
            let bytes = vec![1_u8; argument.parse::<usize>().expect("a number") << 20];
            bytes
                .iter()
                .map(|byte| usize::from(*byte))
                .sum::<usize>()
                .to_string()
        }
        "wait" => loop {
            std::thread::park();
        },
        "serve" => if jail::let_signals_in() {
            "asked to end"
        } else {
            "not asked"
        }
        .to_owned(),
        other => format!("unknown: {other}"),
    }
}

/// The compile helper: the source says what to do.
pub(crate) fn compile() {
    let again = |number: i32, write: bool| {
        fs::OpenOptions::new()
            .read(!write)
            .write(write)
            .open(format!("/proc/self/fd/{number}"))
            .expect("opened")
    };
    let (mut source, mut target) = (again(3, false), again(4, true));
    jail::enter_compile_jail().expect("enters");
    let mut text = String::new();
    source.read_to_string(&mut text).expect("readable");
    match text.trim() {
        "copy" => {
            let file = fs::File::open("/etc/passwd").is_ok();
            let network = std::net::UdpSocket::bind("127.0.0.1:0").is_ok();
            let thread = std::thread::spawn(|| 1).join().expect("joined");
            let text = format!("file {file} network {network} thread {thread}");
            target.write_all(text.as_bytes()).expect("written");
        }
        "forever" => loop {
            std::hint::black_box(());
        },
        "memory" => {
            let bytes: Vec<u8> = vec![1; 1 << 30];
            std::hint::black_box(bytes);
        }
        "refuse" => {
            let _ = std::io::stderr().write_all(b"not a program\n");
            std::process::exit(1);
        }
        _ => {
            let _ = std::io::stdout().as_fd();
        }
    }
    std::process::exit(0);
}
