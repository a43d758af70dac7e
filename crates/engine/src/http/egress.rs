//! Requests that a guest sends (`wasi:http/outgoing-handler`, `wasi:http/client`).
//!
//! wasmtime's own way is switched off (cargo feature `default-send-request`): it resolves and
//! connects past every policy. Here a name is resolved once, and the connection goes to an
//! address of that answer, so that what was checked is what is used.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::http::{Roots, traced};
use crate::network::Gate;
use crate::trace::Current;

/// How long a step may take if the guest does not say (wasmtime's own default).
const PATIENCE: Duration = Duration::from_secs(600);

/// What a finished connection says, for the guest that asked.
pub(super) type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
pub(super) type Answer = (Response<WasiBody>, Io);

/// Sends a guest's requests, where the gate lets them.
#[derive(Clone)]
pub(crate) struct Egress {
    pub(crate) gate: Arc<Gate>,
    pub(crate) roots: Arc<Roots>,
    /// What a request belongs to, where requests are traced.
    pub(crate) current: Option<Current>,
}

impl WasiHttpHooks for Egress {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Io,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        let (egress, options) = (self.clone(), options.unwrap_or_default());
        match self.current.clone() {
            None => Box::new(send(egress, request, options)),
            Some(current) => Box::new(traced::sent(current, request, move |request| {
                send(egress, request, options)
            })),
        }
    }
}

async fn send(
    egress: Egress,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Answer, Error> {
    let target = Target::of(request.uri())?;
    let request = for_origin(request, &target)?;
    let connect = async {
        let stream = target.connect(&egress.gate).await?;
        if target.tls {
            let name = target.server_name()?;
            let stream = egress
                .roots
                .connector()?
                .connect(name, stream)
                .await
                .map_err(Error::Tls)?;
            handshake(stream).await
        } else {
            handshake(stream).await
        }
    };
    let (mut sender, connection) = timeout(options.connect_timeout.unwrap_or(PATIENCE), connect)
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let response = timeout(
        options.first_byte_timeout.unwrap_or(PATIENCE),
        sender.send_request(request),
    )
    .await
    .map_err(|_| Error::ConnectionReadTimeout)?
    .map_err(Error::from)?;
    let patience = options.between_bytes_timeout.unwrap_or(PATIENCE);
    let response = response.map(|body| with_patience(body, patience));
    Ok((
        response,
        Box::new(async move { connection.await.map_err(Error::from) }),
    ))
}

/// Where a request goes.
struct Target {
    host: String,
    port: u16,
    tls: bool,
}

impl Target {
    fn of(uri: &Uri) -> Result<Self, Error> {
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let port = port(authority)?.unwrap_or(if tls { 443 } else { 80 });
        // An IPv6 address stands in brackets in an authority, and nowhere else.
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(Error::HttpRequestUriInvalid);
        }
        Ok(Self { host, port, tls })
    }

    /// Resolves once and takes the first address that is allowed and answers.
    async fn connect(&self, gate: &Gate) -> Result<TcpStream, Error> {
        let asked = || format!("a request to {}:{}", self.host.escape_debug(), self.port);
        if !gate.sends() || !gate.lets_look_up(&self.host) {
            gate.tell(&asked());
            return Err(Error::HttpRequestDenied);
        }
        let mut addresses: Vec<SocketAddr> = lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| Error::DnsError {
                rcode: Some(error.to_string()),
                info_code: None,
            })?
            .collect();
        for address in &addresses {
            gate.resolved(&self.host, address.ip());
        }
        if let Some(first) = addresses.first().copied() {
            addresses.retain(|address| gate.lets_out(*address));
            if addresses.is_empty() {
                gate.tell(&format!("{} ({})", asked(), first.ip()));
                return Err(Error::DestinationIpProhibited);
            }
        }
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Small requests are sent at once; a failure changes only the speed.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(match last.kind() {
            io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
            io::ErrorKind::TimedOut => Error::ConnectionTimeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Error::DestinationUnavailable
            }
            io::ErrorKind::AddrNotAvailable => Error::DestinationNotFound,
            _ => Error::Connect(last),
        })
    }

    fn server_name(&self) -> Result<ServerName<'static>, Error> {
        ServerName::try_from(self.host.clone()).map_err(|_| Error::HttpRequestUriInvalid)
    }
}

/// The port in an authority; a port that is no number is an error and not the default.
fn port(authority: &Authority) -> Result<Option<u16>, Error> {
    let written = authority
        .as_str()
        .rsplit_once(authority.host())
        .map_or("", |(_, rest)| rest);
    match written.strip_prefix(':') {
        None | Some("") => Ok(None),
        Some(number) => number
            .parse()
            .map(Some)
            .map_err(|_| Error::HttpRequestUriInvalid),
    }
}

/// The request as an origin server takes it: path in the request line, host in its header.
fn for_origin(request: Request<WasiBody>, target: &Target) -> Result<Request<WasiBody>, Error> {
    let (mut parts, body) = request.into_parts();
    if !parts.headers.contains_key(HOST) {
        let authority = parts
            .uri
            .authority()
            .map_or(target.host.as_str(), Authority::as_str);
        let value = HeaderValue::from_str(authority).map_err(|_| Error::HttpRequestUriInvalid)?;
        parts.headers.insert(HOST, value);
    }
    let path = parts
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    Ok(Request::from_parts(parts, body))
}

/// Opens HTTP/1.1 on a connection and drives it beside the guest; the handle ends it when
/// nobody wants the answer any more.
async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<
    (
        http1::SendRequest<WasiBody>,
        AbortOnDropJoinHandle<hyper::Result<()>>,
    ),
    Error,
> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    Ok((sender, wasmtime_wasi::runtime::spawn(connection)))
}

/// A body that fails if nothing comes for so long.
fn with_patience(body: Incoming, patience: Duration) -> WasiBody {
    let frames = stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        let (frame, rest): (Result<Frame<Bytes>, Error>, _) =
            match timeout(patience, body.frame()).await {
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => (Ok(frame), Some(body)),
                Ok(Some(Err(error))) => (Err(error.into()), None),
                Err(_) => (Err(Error::ConnectionReadTimeout), None),
            };
        Some((frame, rest))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_from_the_uri() {
        for (uri, host, port, tls) in [
            ("http://example.com/x", "example.com", 80, false),
            ("https://example.com", "example.com", 443, true),
            ("http://[::1]:81/", "::1", 81, false),
            ("https://10.0.0.1:8443/a?b", "10.0.0.1", 8443, true),
        ] {
            let target = Target::of(&uri.parse().expect("uri")).expect(uri);
            assert_eq!(
                (target.host.as_str(), target.port, target.tls),
                (host, port, tls)
            );
        }
        for uri in ["/path", "http://host:99999/"] {
            if let Ok(uri) = uri.parse() {
                assert!(Target::of(&uri).is_err(), "{uri}");
            }
        }
    }

    #[test]
    fn an_origin_gets_a_path_and_a_host() {
        let body = || {
            http_body_util::Empty::new()
                .map_err(|never| match never {})
                .boxed_unsync()
        };
        let request = Request::get("http://example.com:81/a?b=c")
            .body(body())
            .expect("request");
        let target = Target::of(request.uri()).expect("target");
        let request = for_origin(request, &target).expect("origin form");
        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers()[HOST], "example.com:81");
    }
}
