//! What the commands ask of a supervisor that lives, over the socket by which containerd talks to it.
//!
//! They ask with nothing but the socket: tokio keeps descriptors of its own in a process for good, and `start`, when the
//! answer is that the supervisor ends, forks one that begins with all of them closed ([`jail::fork_daemon`]).

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::context::{self, Context};
use containerd_shim_protos::ttrpc::proto::{
    MESSAGE_HEADER_LENGTH, MESSAGE_LENGTH_MAX, MessageHeader,
};
use containerd_shim_protos::ttrpc::{Code, Request, Response, Status};

/// The service of which it is asked.
const SERVICE: &str = "containerd.task.v3.Task";
/// The metadata of a Connect request by which `start` announces a container: the supervisor waits for its Create. Its
/// value is the bundle.
pub(crate) const ANNOUNCED: &str = "sampan.dev/announced";
/// The metadata of a Delete request by which `delete` gives a container up, in whatever state it is.
pub(crate) const ABANDONED: &str = "sampan.dev/abandoned";

/// A request of the Task service.
pub(crate) struct Question<'a, M> {
    pub(crate) method: &'a str,
    /// A name and its value, by which it means more than its message.
    pub(crate) metadata: Option<(&'a str, &'a str)>,
    pub(crate) message: &'a M,
    /// How long each step of the exchange may take.
    pub(crate) within: Duration,
}

impl<M: Message> Question<'_, M> {
    /// Asks it of the supervisor on the other side; gives what that one refuses it for.
    ///
    /// # Errors
    /// When the supervisor ends before it has answered, or takes too long.
    pub(crate) fn ask(&self, mut supervisor: UnixStream) -> io::Result<Result<(), Status>> {
        supervisor.set_read_timeout(Some(self.within))?;
        supervisor.set_write_timeout(Some(self.within))?;
        supervisor.write_all(&self.frame()?)?;
        let mut header = [0; MESSAGE_HEADER_LENGTH];
        supervisor.read_exact(&mut header)?;
        let length = usize::try_from(MessageHeader::from(header).length)
            .ok()
            .filter(|length| *length <= MESSAGE_LENGTH_MAX)
            .ok_or_else(|| io::Error::other("an answer that is too long"))?;
        let mut body = vec![0; length];
        supervisor.read_exact(&mut body)?;
        let mut response = Response::parse_from_bytes(&body)?;
        Ok(match response.status.take() {
            Some(status) if status.code() != Code::OK => Err(status),
            _ => Ok(()),
        })
    }

    /// Whether the supervisor on the other side does not hang up instead of an answer. One that is slow does not.
    pub(crate) fn is_heard(&self, supervisor: UnixStream) -> bool {
        use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let hangs_up = |error: &io::Error| {
            matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
        };
        !self.ask(supervisor).is_err_and(|error| hangs_up(&error))
    }

    /// A header and a request (ttrpc's `PROTOCOL.md`, "Message Frame").
    fn frame(&self) -> io::Result<Vec<u8>> {
        let mut context = Context::default();
        if let Some((name, value)) = self.metadata {
            context.add(name.to_owned(), value.to_owned());
        }
        let request = Request {
            service: SERVICE.to_owned(),
            method: self.method.to_owned(),
            payload: self.message.write_to_bytes()?,
            timeout_nano: i64::try_from(self.within.as_nanos()).unwrap_or(i64::MAX),
            metadata: context::to_pb(context.metadata),
            ..Default::default()
        }
        .write_to_bytes()?;
        let length = u32::try_from(request.len()).map_err(io::Error::other)?;
        // Clients number their streams with odd numbers.
        let mut frame = Vec::from(MessageHeader::new_request(1, length));
        frame.extend(request);
        Ok(frame)
    }
}
