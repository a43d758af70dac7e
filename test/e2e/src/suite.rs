//! Running the tests: one world for all of them, a namespace for each, and a look at what is left.
use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OnceCell, RwLock};

use crate::{Space, World};

/// How many tests run at once: they wait for the cluster more than they compute.
const THREADS: usize = 4;

type Body = Box<dyn FnOnce(Arc<Space>) -> LocalBoxFuture<'static, Result<()>> + Send>;

/// One test.
pub struct Case {
    name: String,
    alone: bool,
    body: Body,
}

impl Case {
    /// A test that runs beside others, by its path, of which the crate is left out.
    #[must_use]
    pub fn new<F, Fut>(name: &str, body: F) -> Self
    where
        F: FnOnce(Arc<Space>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + 'static,
    {
        Self {
            name: name
                .split_once("::")
                .map_or(name, |(_, path)| path)
                .to_owned(),
            alone: false,
            body: Box::new(move |space| Box::pin(body(space))),
        }
    }

    /// Runs it while no other test runs: it changes the node, counts what the node does, or wants all of it.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }
}

/// Makes tests of functions of the module in which it stands.
#[macro_export]
macro_rules! cases {
    ($($test:ident),* $(,)?) => {
        vec![$($crate::Case::new(concat!(module_path!(), "::", stringify!($test)), $test)),*]
    };
}

/// Why a test does not run here; returned as an error, it makes the test count as skipped.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The error of a test that cannot run here.
#[must_use]
pub fn skip(why: impl Into<String>) -> anyhow::Error {
    Skip(why.into()).into()
}

/// What the tests share.
struct Stage {
    bare: bool,
    world: OnceCell<Result<Arc<World>, String>>,
    turn: RwLock<()>,
}

impl Stage {
    async fn world(&self) -> Result<Arc<World>> {
        let world = self
            .world
            .get_or_init(|| async {
                match World::open(self.bare).await {
                    Ok(world) => Ok(Arc::new(world)),
                    Err(error) => Err(format!("{error:#}")),
                }
            })
            .await;
        match world {
            Ok(world) => Ok(Arc::clone(world)),
            Err(error) => Err(anyhow::anyhow!("{error}")),
        }
    }

    async fn run(&self, name: &str, alone: bool, body: Body) -> Result<()> {
        if let Some(why) = World::impossible()? {
            return Err(skip(why));
        }
        // One of the two is held while the test runs.
        let (_beside, _alone) = if alone {
            (None, Some(self.turn.write().await))
        } else {
            (Some(self.turn.read().await), None)
        };
        let world = self.world().await.context("bring up the cluster")?;
        let space = Arc::new(Space::create(world, name).await?);
        // A panic becomes an error, so that the space is closed.
        let outcome = AssertUnwindSafe(body(Arc::clone(&space)))
            .catch_unwind()
            .await
            .unwrap_or_else(|panic| Err(anyhow::anyhow!("{}", message(panic.as_ref()))));
        let outcome = match outcome {
            Err(error) if !error.is::<Skip>() => {
                let seen = space.describe().await;
                Err(anyhow::anyhow!("{error:#}\nin {}:\n{seen}", space.name()))
            }
            other => other,
        };
        let closed = space.close().await;
        outcome.and(closed)
    }
}

/// Runs the tests that the command line asks for, then takes the cluster down and looks whether anything is left.
#[must_use]
pub fn run(cases: Vec<Case>) -> ExitCode {
    run_in(cases, false)
}

/// As [`run`], in a cluster on whose node Sampan was never installed.
#[must_use]
pub fn run_bare(cases: Vec<Case>) -> ExitCode {
    run_in(cases, true)
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what the cluster leaves belongs to no test, and has to be said"
)]
fn run_in(mut cases: Vec<Case>, bare: bool) -> ExitCode {
    // One that waits to be alone keeps all that come later waiting with it.
    cases.sort_by_key(|case| case.alone);
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let runtime = match runtime() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let stage = Arc::new(Stage {
        bare,
        world: OnceCell::new(),
        turn: RwLock::new(()),
    });
    let trials = cases
        .into_iter()
        .map(|case| {
            let (stage, runtime) = (Arc::clone(&stage), Arc::clone(&runtime));
            let name = case.name.clone();
            Trial::ignorable_test(case.name, move || {
                match runtime.block_on(stage.run(&name, case.alone, case.body)) {
                    Ok(()) => Ok(Completion::Completed),
                    Err(error) => match error.downcast::<Skip>() {
                        Ok(skip) => Ok(Completion::ignored_with(skip)),
                        Err(error) => Err(Failed::from(format!("{error:#}"))),
                    },
                }
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let world = Arc::into_inner(stage).and_then(|stage| stage.world.into_inner());
    if let Some(Ok(world)) = world
        && let Err(error) = runtime.block_on(close(world))
    {
        // Among what the tests have said: `cargo xtask` tells it once more in the end.
        println!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// What a failed assertion says.
fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "a panic without words",
    }
}

async fn close(world: Arc<World>) -> Result<()> {
    let world = Arc::into_inner(world).context("a test still holds the cluster")?;
    world.close().await
}

fn runtime() -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().build().context("start a runtime")
}
