//! libcontainer sends its errors between its processes as their outermost text alone; what was
//! wrong is only in its log. So the log's errors are kept, in a file that its processes share, and
//! the first of them, which is the cause of the others, is told.

use std::fmt::{Debug, Write as _};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use libcontainer::error::LibcontainerError;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::{NativeError, failed};

pub(super) struct Complaints(File);

impl Complaints {
    pub(super) fn new() -> std::io::Result<Self> {
        let memory = rustix::fs::memfd_create("complaints", rustix::fs::MemfdFlags::CLOEXEC)?;
        Ok(Self(memory.into()))
    }

    /// Listens while the work is done, in this process and in those that it forks.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        match self.0.try_clone() {
            Ok(file) => tracing::subscriber::with_default(Listener(file), work),
            Err(_) => work(),
        }
    }

    /// An error of libcontainer's, with its cause.
    pub(super) fn about(self, step: &'static str, error: LibcontainerError) -> NativeError {
        let mut error = failed(step)(error);
        if let (NativeError::Container { reason, .. }, Some(first)) = (&mut error, self.first()) {
            *reason = format!("{first} ({reason})");
        }
        error
    }

    /// The first one, in one line.
    pub(super) fn first(mut self) -> Option<String> {
        let mut text = String::new();
        self.0.seek(SeekFrom::Start(0)).ok()?;
        self.0.read_to_string(&mut text).ok()?;
        text.lines().next().map(str::to_owned)
    }
}

struct Listener(File);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut text = line.message.replace('\n', " ");
        for (name, value) in line.fields {
            // Writing to a String does not fail.
            let _ = write!(text, ", {name} {}", value.replace('\n', " "));
        }
        text.push('\n');
        // The descriptor's place in the file is shared by all processes that came by fork.
        let _ = (&self.0).write_all(text.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push((name, format!("{value:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_kept_in_one_line() {
        let complaints = Complaints::new().expect("a memory file");
        complaints.during(|| {
            tracing::warn!("not this");
            tracing::error!(path = "/x", "cannot\nmount");
            tracing::error!("failed");
        });
        assert_eq!(
            complaints.first().as_deref(),
            Some("cannot mount, path \"/x\"")
        );
        assert_eq!(Complaints::new().expect("a memory file").first(), None);
    }
}
