//! Traces of what containerd asks for: a span for the request, one for each phase below it, joined to containerd's own
//! trace where that sends its context along (its `otelttrpc` does).
//!
//! Nothing is traced unless somebody listens ([`plan::trace`]): then there is a notice in the run directory, which is looked
//! for once when a container is created. Spans go into a bounded queue, from there to the listener in packets, and nobody
//! waits for either.

mod guest;
mod outbox;

use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use plan::trace::{
    Context, Kind, NOTICE, Notice, SOCKET, Sampler, Span, SpanId, TRACEPARENT, TRACESTATE, Tracing,
    nanoseconds,
};
use tracing::Instrument as _;

pub(crate) use self::guest::{follow, service};
use self::outbox::Outbox;

/// Metadata of a request, as ttrpc has it.
pub(crate) type Metadata = HashMap<String, Vec<String>>;

/// Whether and where to trace.
pub(crate) struct Traces {
    notice: PathBuf,
    socket: PathBuf,
    outbox: Mutex<Option<Outbox>>,
}

impl Traces {
    /// Of the supervisor that has this run directory.
    pub(crate) fn new(run: &Path) -> Self {
        Self {
            notice: run.join(NOTICE),
            socket: run.join(SOCKET),
            outbox: Mutex::default(),
        }
    }

    /// A request that makes a container; `log` is its span in the log, and gives the name.
    pub(crate) fn begin(&self, log: tracing::Span, id: &str, metadata: &Metadata) -> Phase {
        let Some(sampler) = self.sampler() else {
            return Phase { log, open: None };
        };
        let of = Arc::new(Of {
            outbox: self.outbox(),
            sampler,
            container: id.to_owned(),
            known: OnceLock::new(),
        });
        let root = Trace(None);
        root.request(of, None, log, metadata)
    }

    /// What the listener wants; `None` where nobody listens, which costs one open that fails.
    fn sampler(&self) -> Option<Sampler> {
        let notice = std::fs::read(&self.notice).ok()?;
        let read = plan::from_json(&notice);
        let read: Result<Notice, _> = read;
        match read {
            Ok(notice) => Some(notice.sampler),
            Err(error) => {
                tracing::warn!(%error, file = %self.notice.display(), "nothing is traced");
                None
            }
        }
    }

    fn outbox(&self) -> Outbox {
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        outbox
            .get_or_insert_with(|| Outbox::open(&self.socket))
            .clone()
    }

    /// Waits a moment until what there is has been sent.
    pub(crate) async fn sent(&self) {
        let outbox = self
            .outbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(outbox) = outbox {
            outbox.sent().await;
        }
    }
}

/// A container that is traced.
struct Of {
    outbox: Outbox,
    sampler: Sampler,
    container: String,
    /// What its plan says of it.
    known: OnceLock<Vec<(String, String)>>,
}

/// What something is a part of; of what is not traced, nothing. A copy means the same.
#[derive(Clone, Default)]
pub(crate) struct Trace(Option<(Arc<Of>, Context)>);

impl Trace {
    /// A phase of it; `log` is its span in the log, and gives the name.
    pub(crate) fn phase(&self, log: tracing::Span) -> Phase {
        let open = self.0.as_ref().and_then(|(of, context)| {
            let parent = Some(context.span);
            Open::new(of, context.child(), parent, &log, Kind::Internal)
        });
        Phase { log, open }
    }

    /// A further request for the same container: a part of what its metadata says, else of this.
    pub(crate) fn again(&self, log: tracing::Span, metadata: &Metadata) -> Phase {
        match &self.0 {
            None => Phase { log, open: None },
            Some((of, context)) => self.request(Arc::clone(of), Some(context), log, metadata),
        }
    }

    fn request(
        &self,
        of: Arc<Of>,
        otherwise: Option<&Context>,
        log: tracing::Span,
        metadata: &Metadata,
    ) -> Phase {
        let given = read(metadata);
        let parent = given.as_ref().or(otherwise);
        let mut context = parent.map_or_else(|| Context::new(false), Context::child);
        context.sampled = of.sampler.takes(parent, context.trace);
        let above = parent.map(|parent| parent.span);
        let mut open = Open::new(&of, context, above, &log, Kind::Server);
        if let Some(open) = &mut open {
            open.span.remote = given.is_some();
        }
        Phase { log, open }
    }

    /// Says more of the container; the first word counts.
    pub(crate) fn know(&self, attributes: impl FnOnce() -> Vec<(String, String)>) {
        if let Some((of, _)) = &self.0 {
            of.known.get_or_init(attributes);
        }
    }

    /// What the container's runner is told.
    pub(crate) fn orders(&self) -> Option<Tracing> {
        let (of, start) = self.0.as_ref()?;
        Some(Tracing {
            sampler: of.sampler,
            start: start.clone(),
        })
    }
}

/// Something that takes its time: a span in the log and, where it is traced, one of a trace.
pub(crate) struct Phase {
    log: tracing::Span,
    open: Option<Open>,
}

impl Phase {
    /// What is done as a part of it.
    pub(crate) fn inside(&self) -> Trace {
        Trace(
            self.open
                .as_ref()
                .map(|open| (Arc::clone(&open.of), open.context.clone())),
        )
    }

    /// Does it at once.
    pub(crate) fn at_once<T, E: Display>(
        self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let result = self.log.in_scope(work);
        end(self.open, &result);
        result
    }

    /// Does it in a future, which lives on the heap: what is inside one is in every future around it once more, and a
    /// supervisor's stack stays as deep as it was once.
    pub(crate) fn around<T, E: Display>(
        self,
        work: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, E>> {
        let work = Box::pin(work.instrument(self.log));
        let open = self.open;
        async move {
            let result = work.await;
            end(open, &result);
            result
        }
    }
}

fn end<T, E: Display>(open: Option<Open>, result: &Result<T, E>) {
    if let Some(mut open) = open {
        open.given_up = false;
        open.span.error = result.as_ref().err().map(ToString::to_string);
    }
}

/// A span that is not over; over when it is dropped. Also of what is not kept: what is inside has to know that.
struct Open {
    of: Arc<Of>,
    context: Context,
    span: Span,
    given_up: bool,
}

impl Open {
    fn new(
        of: &Arc<Of>,
        context: Context,
        parent: Option<SpanId>,
        log: &tracing::Span,
        kind: Kind,
    ) -> Option<Self> {
        // A span of the log that is switched off has its name all the same.
        let name = log.metadata()?.name();
        Some(Self {
            of: Arc::clone(of),
            span: Span::begun(&context, parent, name, kind),
            context,
            given_up: true,
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.context.sampled {
            return;
        }
        let mut span = self.span.clone();
        span.over();
        if self.given_up {
            span.error = Some("given up".to_owned());
        }
        span.add("container.id", self.of.container.as_str());
        for (key, value) in self.of.known.get().into_iter().flatten() {
            if key != "container.id" {
                span.add(key, value.as_str());
            }
        }
        self.of.outbox.add(span.bounded(), None);
    }
}

/// The context that a request brings.
fn read(metadata: &Metadata) -> Option<Context> {
    let [parent] = &metadata.get(TRACEPARENT)?[..] else {
        return None;
    };
    let state = metadata.get(TRACESTATE).map(|states| states.join(","));
    Context::parse(parent, state.as_deref())
}

/// What a runner did before it was ready, as it has told: one after the other, until now. It began as soon as it was spawned,
/// before it was waited for.
pub(crate) fn laps(trace: &Trace, laps: &jail::Laps) {
    let Some((of, context)) = trace.0.as_ref().filter(|(_, context)| context.sampled) else {
        return;
    };
    let took = laps.open + laps.program + laps.enter;
    let mut at = SystemTime::now().checked_sub(took).unwrap_or(UNIX_EPOCH);
    for (name, took) in [
        ("runner.open", laps.open),
        ("runner.link", laps.program),
        ("runner.enter", laps.enter),
    ] {
        let mut span = Span::begun(&context.child(), Some(context.span), name, Kind::Internal);
        span.start = nanoseconds(at);
        at += took;
        span.end = nanoseconds(at);
        span.add("container.id", of.container.as_str());
        of.outbox.add(span.bounded(), None);
    }
}

#[cfg(test)]
mod tests {
    use plan::trace::Parcel;
    use tokio::net::UnixDatagram;
    use tracing::debug_span;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// A run directory in which somebody listens.
    fn listened(sampler: &str) -> (tempfile::TempDir, UnixDatagram) {
        let run = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(run.path().join(plan::trace::DIRECTORY)).expect("made");
        let notice = Notice {
            sampler: Sampler::read(Some(sampler), None).expect("a sampler"),
        };
        let json = serde_json::to_vec(&notice).expect("numbers");
        std::fs::write(run.path().join(NOTICE), json).expect("written");
        let socket = UnixDatagram::bind(run.path().join(SOCKET)).expect("bound");
        (run, socket)
    }

    fn joined(parent: &str) -> Metadata {
        Metadata::from([(TRACEPARENT.to_owned(), vec![parent.to_owned()])])
    }

    /// A container is made, in which a phase fails; and started.
    async fn made(traces: &Traces, metadata: &Metadata) -> Trace {
        let phase = traces.begin(debug_span!("create"), "c1", metadata);
        let trace = phase.inside();
        let inside = trace.clone();
        let work = async move {
            let plan = inside.phase(debug_span!("plan"));
            plan.at_once(|| Ok::<_, String>(()))?;
            inside.know(|| vec![("k8s.pod.name".to_owned(), "web".to_owned())]);
            let image = inside.phase(debug_span!("image"));
            image
                .around(async { Err::<(), _>("no such image".to_owned()) })
                .await
        };
        assert!(phase.around(work).await.is_err());
        let start = trace.again(debug_span!("start"), &Metadata::new());
        start.at_once(|| Ok::<_, String>(())).expect("starts");
        drop(trace.phase(debug_span!("dropped")));
        trace
    }

    #[tokio::test]
    async fn phases_are_parts_of_what_containerd_asks() {
        let (run, socket) = listened("parentbased_always_off");
        let traces = Traces::new(run.path());
        let trace = made(&traces, &joined(PARENT)).await;
        let orders = trace.orders().expect("traced");
        traces.sent().await;
        let mut packet = vec![0; 65_536];
        let length = socket.recv(&mut packet).await.expect("a packet");
        let parcel = Parcel::read(&packet[..length]).expect("a parcel");
        let names: Vec<&str> = parcel.spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["plan", "image", "create", "start", "dropped"]);
        let [plan, image, create, start, dropped] = &parcel.spans[..] else {
            panic!("{names:?}")
        };
        assert_eq!(
            create.parent.map(String::from).as_deref(),
            Some(&PARENT[36..52])
        );
        assert!(create.remote && create.kind == Kind::Server && !start.remote);
        assert_eq!(orders.start.span, create.span);
        for span in [plan, image, start, dropped] {
            assert_eq!((span.parent, span.trace), (Some(create.span), create.trace));
        }
        let errors: Vec<_> = parcel
            .spans
            .iter()
            .map(|span| span.error.as_deref())
            .collect();
        let none = Some("no such image");
        assert_eq!(errors, [None, none, none, None, Some("given up")]);
        let of = |span: &Span| -> String {
            span.attributes
                .iter()
                .map(|(key, _)| format!("{key} "))
                .collect()
        };
        assert_eq!(of(plan), "container.id ");
        assert_eq!(of(create), "container.id k8s.pod.name ");
    }

    #[tokio::test]
    async fn what_is_not_kept_is_not_told() {
        for (sampler, metadata) in [
            (
                "parentbased_always_on",
                joined(&PARENT.replace("-01", "-00")),
            ),
            ("always_off", joined(PARENT)),
            ("always_off", joined("nonsense")),
        ] {
            let (run, socket) = listened(sampler);
            let traces = Traces::new(run.path());
            let trace = made(&traces, &metadata).await;
            assert!(!trace.orders().expect("its guest has to know").start.sampled);
            traces.sent().await;
            assert!(socket.try_recv(&mut [0; 8]).is_err(), "{sampler}");
        }
    }

    #[tokio::test]
    async fn where_nobody_listens_nothing_is_traced() {
        let run = tempfile::tempdir().expect("a directory");
        let traces = Traces::new(run.path());
        let trace = made(&traces, &joined(PARENT)).await;
        assert!(trace.orders().is_none() && traces.outbox.lock().expect("whole").is_none());
        // Nor where its notice is none.
        std::fs::create_dir(run.path().join(plan::trace::DIRECTORY)).expect("made");
        std::fs::write(run.path().join(NOTICE), "{}").expect("written");
        assert!(made(&traces, &joined(PARENT)).await.orders().is_none());
    }
}
