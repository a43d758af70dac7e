//! Name lookup for guests under a policy: wasmtime's own, asked first whether it may, and told on what it found.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wasmtime::component::{Accessor, HasData, Linker, Resource};
use wasmtime_wasi::p2::SocketError;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup as lookup2;
use wasmtime_wasi::p2::bindings::sockets::network as network2;
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup as lookup3;
use wasmtime_wasi::p3::bindings::sockets::types as types3;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsCtxView, WasiSocketsView};

use crate::network::Gate;
use crate::state::ComponentState;

/// Lookups of WASI 0.2 that are under way, and their names, by the number of their resource.
pub(crate) type Asked = HashMap<u32, String>;

struct NameLookup;

impl HasData for NameLookup {
    type Data<'a> = Names<'a>;
}

pub(crate) struct Names<'a> {
    pub(crate) sockets: WasiSocketsCtxView<'a>,
    pub(crate) gate: &'a Gate,
    pub(crate) asked: &'a mut Asked,
}

/// Puts itself before wasmtime's own lookup of WASI 0.2.
pub(crate) fn watch2(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    lookup2::add_to_linker::<_, NameLookup>(linker, ComponentState::names)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The same of WASI 0.3.
pub(crate) fn watch3(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    lookup3::add_to_linker::<_, NameLookup>(linker, ComponentState::names)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn refuse(gate: &Gate, name: &str) -> bool {
    let refused = !gate.lets_look_up(name);
    if refused {
        gate.tell(&format!("looking up `{}`", name.escape_debug()));
    }
    refused
}

impl lookup2::Host for Names<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<network2::Network>,
        name: String,
    ) -> Result<Resource<lookup2::ResolveAddressStream>, SocketError> {
        if refuse(self.gate, &name) {
            return Err(network2::ErrorCode::AccessDenied.into());
        }
        let stream = lookup2::Host::resolve_addresses(&mut self.sockets, network, name.clone())?;
        self.asked.insert(stream.rep(), name);
        Ok(stream)
    }
}

impl lookup2::HostResolveAddressStream for Names<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<lookup2::ResolveAddressStream>,
    ) -> Result<Option<network2::IpAddress>, SocketError> {
        let rep = stream.rep();
        let found =
            lookup2::HostResolveAddressStream::resolve_next_address(&mut self.sockets, stream)?;
        if let (Some(address), Some(name)) = (&found, self.asked.get(&rep)) {
            self.gate.resolved(name, address2(address));
        }
        Ok(found)
    }

    fn subscribe(
        &mut self,
        stream: Resource<lookup2::ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<wasmtime_wasi::p2::DynPollable>> {
        lookup2::HostResolveAddressStream::subscribe(&mut self.sockets, stream)
    }

    fn drop(&mut self, stream: Resource<lookup2::ResolveAddressStream>) -> wasmtime::Result<()> {
        self.asked.remove(&stream.rep());
        lookup2::HostResolveAddressStream::drop(&mut self.sockets, stream)
    }
}

/// What errors become: wasmtime's own.
impl network2::Host for Names<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<network2::ErrorCode> {
        network2::Host::convert_error_code(&mut self.sockets, error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<network2::ErrorCode>> {
        network2::Host::network_error_code(&mut self.sockets, error)
    }
}

impl network2::HostNetwork for Names<'_> {
    fn drop(&mut self, network: Resource<network2::Network>) -> wasmtime::Result<()> {
        network2::HostNetwork::drop(&mut self.sockets, network)
    }
}

impl lookup3::Host for Names<'_> {}

impl lookup3::HostWithStore<ComponentState> for NameLookup {
    async fn resolve_addresses(
        store: &Accessor<ComponentState, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<types3::IpAddress>, lookup3::ErrorCode>> {
        if store.with(|mut access| refuse(access.get().gate, &name)) {
            return Ok(Err(lookup3::ErrorCode::AccessDenied));
        }
        let own = store.with_getter::<WasiSockets>(ComponentState::sockets);
        let found = <WasiSockets as lookup3::HostWithStore<ComponentState>>::resolve_addresses(
            &own,
            name.clone(),
        )
        .await?;
        if let Ok(addresses) = &found {
            store.with(|mut access| {
                let gate = access.get().gate;
                for address in addresses {
                    gate.resolved(&name, address3(address));
                }
            });
        }
        Ok(found)
    }
}

fn address2(address: &network2::IpAddress) -> IpAddr {
    match address {
        network2::IpAddress::Ipv4((a, b, c, d)) => Ipv4Addr::new(*a, *b, *c, *d).into(),
        network2::IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => {
            Ipv6Addr::new(*a, *b, *c, *d, *e, *f, *g, *h).into()
        }
    }
}

fn address3(address: &types3::IpAddress) -> IpAddr {
    match address {
        types3::IpAddress::Ipv4((a, b, c, d)) => Ipv4Addr::new(*a, *b, *c, *d).into(),
        types3::IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => {
            Ipv6Addr::new(*a, *b, *c, *d, *e, *f, *g, *h).into()
        }
    }
}
