//! Serving a component that exports `wasi:http/incoming-handler` 0.2: HTTP/1.1, one instance per request.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use containerd_shim_wasm::sandbox::context::RuntimeContext;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::guest::{Host, environment};

/// The variable by which runwasi's wasmtime shim takes its address; `0.0.0.0:8080` without it.
const ADDRESS_VARIABLE: &str = "WASMTIME_HTTP_PROXY_SOCKET_ADDR";

struct Server {
    proxy: ProxyPre<Host>,
    environment: Vec<(String, String)>,
}

/// Serves until the process ends.
pub async fn serve(proxy: ProxyPre<Host>, ctx: &impl RuntimeContext) -> Result<()> {
    let environment = environment(ctx);
    let address: SocketAddr = environment
        .iter()
        .find(|(name, _)| name == ADDRESS_VARIABLE)
        .map_or("0.0.0.0:8080", |(_, value)| value.as_str())
        .parse()
        .with_context(|| format!("parse {ADDRESS_VARIABLE}"))?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    log::info!("serving wasi:http on {address}");
    let server = Arc::new(Server { proxy, environment });
    loop {
        let (stream, peer) = listener.accept().await?;
        let server = server.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let server = server.clone();
                async move { server.answer(request).await }
            });
            if let Err(error) = http1::Builder::new()
                .keep_alive(true)
                .serve_connection(TokioIo::new(stream), service)
                .await
            {
                log::warn!("connection from {peer}: {error:#}");
            }
        });
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<HyperOutgoingBody>> {
        let wasi = WasiCtxBuilder::new()
            .envs(&self.environment)
            .inherit_stdio()
            .inherit_network()
            .build();
        let mut store = Store::new(self.proxy.engine(), Host::new(wasi));
        let (sender, receiver) = oneshot::channel();
        let request = store
            .data_mut()
            .http()
            .new_incoming_request(Scheme::Http, request)?;
        let out = store.data_mut().http().new_response_outparam(sender)?;
        let proxy = self.proxy.clone();
        // A task of its own: the guest may go on after the head of the response was sent.
        let guest = tokio::spawn(async move {
            let instance = proxy.instantiate_async(&mut store).await?;
            instance
                .wasi_http_incoming_handler()
                .call_handle(&mut store, request, out)
                .await
        });
        match receiver.await {
            Ok(response) => Ok(response?),
            Err(_) => {
                guest.await??;
                anyhow::bail!("guest returned without a response")
            }
        }
    }
}
