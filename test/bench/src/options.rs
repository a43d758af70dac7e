//! What can be asked of the bench.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures shims side by side: start-up, throughput, memory.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Contestants: floor, runc, baseline, sampan, sampan-dense, and as -file with the module in a rootfs; base and
    /// base-dense with --base [default: all whose shims are given].
    #[arg(long, value_delimiter = ',')]
    pub(crate) sides: Vec<String>,
    /// What is measured [default: all].
    #[arg(long, value_delimiter = ',')]
    pub(crate) parts: Vec<Part>,
    /// Rounds for the latencies.
    #[arg(long, default_value_t = 60)]
    pub(crate) n: usize,
    /// Pods of each contestant for the footprint.
    #[arg(long, default_value_t = 50)]
    pub(crate) pods: usize,
    /// Pods of each scope for what they take of the machine's memory.
    #[arg(long, default_value_t = 200)]
    pub(crate) many: usize,
    /// Pods of each real program.
    #[arg(long, default_value_t = 10)]
    pub(crate) real_pods: usize,
    /// Rounds for real programs, for the steps inside our shim, and for each kind of cold start.
    #[arg(long, default_value_t = 20)]
    pub(crate) few: usize,
    /// Tasks of each contestant for each throughput.
    #[arg(long, default_value_t = 48)]
    pub(crate) tasks: usize,
    /// How many tasks run at once for the throughputs.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    pub(crate) at_once: Vec<usize>,
    /// Milliseconds between two tasks of the latencies.
    #[arg(long, default_value_t = 20)]
    pub(crate) pause_ms: u64,
    /// A look instead of a measurement: few rounds, pods and tasks.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Also measure starts after the page cache was dropped, which the whole machine feels.
    #[arg(long)]
    pub(crate) drop_caches: bool,
    /// Directories with the shims of the contestants, searched in this order before the built-in ones.
    #[arg(long, value_delimiter = ',')]
    pub(crate) shims: Vec<PathBuf>,
    /// The directory with our shim and runner of another revision, to be compared with.
    #[arg(long)]
    pub(crate) base: Option<PathBuf>,
    /// The directory with the guests that `cargo xtask guests` builds [default: the cache's].
    #[arg(long)]
    pub(crate) guests: Option<PathBuf>,
    /// Where the raw data goes [default: bench.json in cargo's target directory].
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// The directory for the plots [default: beside the raw data].
    #[arg(long)]
    pub(crate) plots: Option<PathBuf>,
    /// Instead of all this: the instructions of a warm start of ours, held against the bounds in this file.
    #[arg(long)]
    pub(crate) counts: Option<PathBuf>,
    /// Or: from `kubectl apply` to Ready in the cluster of KUBECONFIG, for these RuntimeClasses; `-` is
    /// none.
    #[arg(long, value_delimiter = ',')]
    pub(crate) cluster: Vec<String>,
    /// The image of the cluster's pods that have a RuntimeClass.
    #[arg(long, requires = "cluster")]
    pub(crate) image: Option<String>,
    /// The image of those that have none.
    #[arg(
        long,
        requires = "cluster",
        default_value = "registry.k8s.io/pause:3.10"
    )]
    pub(crate) native_image: String,
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// One task at a time, phase by phase.
    Latency,
    /// Who takes how long inside our shim.
    Steps,
    /// Tasks per second.
    Throughput,
    /// Pods that stay, one after another and four at once.
    Pods,
    /// Very many pods of ours.
    Many,
    /// Real programs.
    Programs,
    /// Starts that find less than usual.
    Cold,
}

impl Options {
    /// The command line's, with what follows from it.
    pub(crate) fn read() -> Self {
        let mut options = Self::parse();
        if options.quick {
            options.n = options.n.min(10);
            options.few = options.few.min(3);
            options.pods = options.pods.min(5);
            options.many = options.many.min(20);
            options.real_pods = options.real_pods.min(2);
            options.tasks = options.tasks.min(16);
        }
        options
    }

    pub(crate) fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}
