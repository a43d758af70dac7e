//! The kernel's samples of a process.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use perf_event::events::Software;
use perf_event::{Builder, SampleFlag, Sampler, data::Record};

use crate::failure::{Failure, Kind, Outcome};
use crate::observed::Process;

/// Bytes of the ring that each thread's samples go through, which is read several times a second.
const RING: usize = 512 << 10;
/// How often it is read, and new threads are looked for.
const TURN: Duration = Duration::from_millis(100);
/// From here on addresses are the kernel's, or marks between the parts of a stack.
const NOT_USER: u64 = 1 << 63;

/// What a thread was doing at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) thread: u32,
    /// Nanoseconds, from whenever.
    pub(super) time: u64,
    /// Addresses, the innermost first; all but the first are those to which calls return.
    pub(super) stack: Vec<u64>,
    /// Whether the kernel was at work for it.
    pub(super) in_kernel: bool,
}

/// How it went.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) time: Duration,
    pub(super) lost: u64,
    /// Names of the threads that there were.
    pub(super) threads: BTreeMap<u32, String>,
}

/// Looks at all threads of a process until it ends or the time is over.
pub(super) fn sample(
    process: &Process,
    wanted: Duration,
    frequency: u32,
    mut each: impl FnMut(Sample),
) -> Outcome<Looked> {
    let begun = Instant::now();
    let mut samplers = BTreeMap::new();
    let mut looked = Looked {
        time: wanted,
        lost: 0,
        threads: BTreeMap::new(),
    };
    loop {
        for (thread, name) in threads(process.pid) {
            if looked.threads.insert(thread, name).is_none()
                && let Some(sampler) = open(thread, frequency)?
            {
                samplers.insert(thread, sampler);
            }
        }
        let left = wanted.saturating_sub(begun.elapsed());
        #[expect(
            clippy::disallowed_methods,
            reason = "what happens in this time is looked at"
        )]
        std::thread::sleep(left.min(TURN));
        for (thread, sampler) in &mut samplers {
            looked.lost += drain(*thread, sampler, &mut each);
        }
        if !process.lives() {
            looked.time = begun.elapsed().min(wanted);
            return Ok(looked);
        }
        if begun.elapsed() >= wanted {
            return Ok(looked);
        }
    }
}

/// Threads and their names; none of a process that has gone.
fn threads(pid: i32) -> Vec<(u32, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let numbers = tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse().ok());
    numbers
        .map(|thread: u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/comm"));
            (thread, name.unwrap_or_default().trim_end().to_owned())
        })
        .collect()
}

/// Has a thread looked at; `None` if it has gone.
fn open(thread: u32, frequency: u32) -> Outcome<Option<Sampler>> {
    let pid = i32::try_from(thread).unwrap_or(i32::MAX);
    // A clock of the kernel's: it needs no counters of the processor, which virtual machines seldom have.
    let opened = Builder::new(Software::CPU_CLOCK)
        .observe_pid(pid)
        .any_cpu()
        .include_kernel()
        .exclude_callchain_kernel(true)
        .sample_frequency(frequency.into())
        .sample(SampleFlag::IP)
        .sample(SampleFlag::TIME)
        .sample(SampleFlag::CALLCHAIN)
        .build()
        .and_then(|counter| counter.sampled(RING))
        .and_then(|mut sampler| sampler.enable().map(|()| sampler));
    match opened {
        Ok(sampler) => Ok(Some(sampler)),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            Ok(None)
        }
        Err(error) => Err(refused(thread, error)),
    }
}

fn refused(thread: u32, error: io::Error) -> Failure {
    let attempt = format!("cannot look at thread {thread} (perf_event_open)");
    let attempt = match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "{attempt}: run it as root, on the node itself, or with CAP_PERFMON and CAP_SYS_PTRACE"
        ),
        io::ErrorKind::NotFound | io::ErrorKind::Unsupported => {
            format!("{attempt}: this kernel was built without it (CONFIG_PERF_EVENTS)")
        }
        _ => attempt,
    };
    Failure::at(Kind::System, attempt, error)
}

/// Hands on what there is, and returns how much was lost.
fn drain(thread: u32, sampler: &mut Sampler, each: &mut impl FnMut(Sample)) -> u64 {
    let mut lost = 0;
    while let Some(record) = sampler.next_record() {
        match record.parse_record() {
            Ok(Record::Sample(sample)) => {
                let chain = sample.callchain().unwrap_or_default();
                each(Sample {
                    thread,
                    time: sample.time().unwrap_or_default(),
                    stack: chain.iter().copied().filter(|at| *at < NOT_USER).collect(),
                    in_kernel: sample.ip().is_some_and(|at| at >= NOT_USER),
                });
            }
            Ok(Record::Lost(record)) => lost += record.lost,
            // Of a newer kernel, or of no interest.
            Ok(_) | Err(_) => {}
        }
    }
    lost
}
