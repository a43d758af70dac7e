//! A bridge of our own for pods.
//!
//! CNI's `ptp`, and `bridge` with a gateway, switch on IP forwarding for the whole machine. So the bridge gets its
//! address from the harness, the plugin only plugs pods into it, and pods have no default route.
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

/// The length of a subnet of pods: as many addresses as a bridge of Linux has ports.
const BITS: u8 = 22;
/// How far below a subnet of pods, in the second number, its subnet of Services lies.
const SERVICES: u8 = 40;

/// Makes the bridge and writes its CNI configuration into `conf_dir`; returns the subnet of Services, /24.
///
/// Nothing translates the addresses of Services. With `services` the first of them is the host's, and pods have a route
/// to it: a program of the host may listen there, as the API of a cluster does.
pub(crate) fn create(
    tag: &str,
    scratch: &Path,
    conf_dir: &Path,
    services: bool,
) -> Result<Ipv4Addr> {
    let [_, second, third, _] = free_subnet()?.octets();
    let of_services = Ipv4Addr::new(10, second - SERVICES, third, 0);
    let device = device(tag);
    ip(&["link", "add", &device, "type", "bridge"])?;
    ip(&[
        "address",
        "add",
        &format!("10.{second}.{third}.1/{BITS}"),
        "dev",
        &device,
    ])?;
    if services {
        let first = Ipv4Addr::from_bits(of_services.to_bits() + 1);
        ip(&["address", "add", &format!("{first}/32"), "dev", &device])?;
    }
    ip(&["link", "set", &device, "up"])?;
    let routes = if services {
        json!([{ "dst": format!("{of_services}/24") }])
    } else {
        json!([])
    };
    let conf = json!({
        "cniVersion": "1.0.0",
        "name": tag,
        "plugins": [{
            "type": "bridge",
            "bridge": device,
            "isGateway": false,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": scratch.join("ipam"),
                "routes": routes,
                "ranges": [[{
                    "subnet": format!("10.{second}.{third}.0/{BITS}"),
                    "gateway": format!("10.{second}.{third}.1"),
                }]],
            },
        }],
    });
    fs::create_dir_all(conf_dir).with_context(|| format!("create {}", conf_dir.display()))?;
    fs::write(conf_dir.join("10-pods.conflist"), conf.to_string())
        .context("write the CNI configuration")?;
    Ok(of_services)
}

/// Removes the bridge, if there is one.
pub(crate) fn remove(tag: &str) {
    let device = device(tag);
    if Path::new("/sys/class/net").join(&device).exists() {
        // The only caller is clean-up, which has nobody to tell.
        drop(ip(&["link", "delete", &device]));
    }
}

fn device(tag: &str) -> String {
    // At most 15 bytes.
    format!("br{tag}")
}

/// A subnet of 10.200.0.0 to 10.239.255.255 that no route covers, nor its subnet of Services.
fn free_subnet() -> Result<Ipv4Addr> {
    let routes = fs::read_to_string("/proc/net/route").context("read the routes")?;
    let routes: Vec<(u32, u32)> = routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Both are hexadecimal in the machine's byte order, which is little-endian here.
            let read = |field: &str| Some(u32::from_str_radix(field, 16).ok()?.swap_bytes());
            Some((read(fields.get(1)?)?, read(fields.get(7)?)?))
        })
        .filter(|(_, mask)| *mask != 0)
        .collect();
    for _ in 0..100 {
        let random = RandomState::new().build_hasher().finish();
        let [second, third, ..] = random.to_be_bytes();
        let third = third & !0b11;
        let subnet = Ipv4Addr::new(10, 200 + second % 40, third, 0);
        let services = Ipv4Addr::new(10, 200 - SERVICES + second % 40, third, 0);
        if !routes.iter().any(|(route, mask)| {
            [subnet, services]
                .iter()
                .any(|it| it.to_bits() & mask == *route)
        }) {
            return Ok(subnet);
        }
    }
    bail!("find a free subnet below 10.200.0.0: all that were tried have routes")
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("run ip: install the package iproute2")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
