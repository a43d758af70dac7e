//! `real RUNNER GUEST [ARGS...]`: a guest in the real runner, without containerd. For a look at
//! which system calls it makes (under `strace -f`) and how long it takes.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use jail::{CompileRequest, Report, SpawnRequest};

use crate::stage::{end, stage, wait_for};

pub(crate) fn real(args: &[String]) {
    let (runner, guest) = (std::path::Path::new(&args[0]), &args[1]);
    let mut stage = stage(&["guest"]);
    stage.launch.guest.args = args[1..].to_vec();
    stage.launch.guest.http.address = Ok(([127, 0, 0, 1], 8080).into());
    fs::set_permissions(
        stage.path("volume"),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .expect("opened");
    stage.bind("volume", "/data", false);
    let target = stage.path("artifact");
    let begun = Instant::now();
    let helper = jail::spawn_compiler(CompileRequest {
        runner,
        engine: &plan::EngineSettings::default(),
        source: File::open(guest).expect("a guest").as_fd(),
        target: File::create(&target).expect("made").as_fd(),
        stderr: std::io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .expect("copied"),
        memory: 4 << 30,
        time: Duration::from_secs(120),
    })
    .expect("spawned");
    println!("compiled: {} after {:?}", end(&helper), begun.elapsed());
    fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o400))
        .expect("sealed");
    let begun = Instant::now();
    let own = |stream: &dyn AsFd| stream.as_fd().try_clone_to_owned().ok();
    let child = jail::spawn(SpawnRequest {
        runner,
        launch: &stage.launch,
        artifact: File::open(&target).expect("there").as_fd(),
        rootfs: &stage.rootfs(),
        stdio: [None, own(&std::io::stdout()), own(&std::io::stderr())],
        terminal: false,
        cgroup: &stage.cgroup,
        numbers: None,
    })
    .expect("spawned");
    let report = loop {
        wait_for(child.control().expect("a runner"));
        if let Some(report) = child.read_report().expect("a report") {
            break report;
        }
    };
    println!("{report:?} after {:?}", begun.elapsed());
    if matches!(report, Report::Ready(_)) {
        child.go().expect("goes");
        // Whoever serves is asked from outside: nsenter --net=/proc/PID/ns/net
        println!("pid {}", child.pid());
    }
    println!("ended: {}", end(&child));
}
