//! The state of a machine, as the independent tools `ip`, `bridge` and `wg` report it, except what the lab itself
//! created (the loopback and the link to the underlay) and what the kernel adds by itself.

use std::collections::BTreeMap;

use serde_json::Value;

use super::model::Facts;
use crate::lab::Lab;

/// The commands that report the state. `wg` fails while its device does not exist.
const COMMANDS: [&str; 6] = [
    "ip -d -j link",
    "ip -4 -j address",
    "ip -4 -j route show table all",
    "bridge -j fdb",
    "bridge -d -j link",
    "wg show otwg0 dump 2>&1 || true",
];

/// Separates the outputs of the commands.
const SEPARATOR: &str = "----";

/// The state of a machine.
pub(super) struct ObservedState {
    pub(super) facts: Facts,
    /// The interface indexes of devices with an alias, by name and alias: a recreated device has another index.
    pub(super) devices: BTreeMap<String, u64>,
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("-")
}

fn is_lab_device(device: &str) -> bool {
    matches!(device, "lo" | "eth0")
}

/// Observes a machine.
pub(super) fn observe(lab: &Lab, machine: &str) -> ObservedState {
    let script = COMMANDS.join(&format!("; echo {SEPARATOR}; "));
    let output = lab.lab(&["exec", machine, "--", "sh", "-c", &script]);
    let outputs: Vec<&str> = output.split(SEPARATOR).collect();
    let [links, addresses, routes, fdb, ports, wg] = <[&str; 6]>::try_from(outputs).unwrap();
    let [links, addresses, routes, fdb, ports] = [links, addresses, routes, fdb, ports].map(parse_list);
    let links: Vec<&Value> = links.iter().filter(|link| !is_lab_device(text(link, "ifname"))).collect();
    let mut facts = Facts::new();
    for link in &links {
        facts.extend(link_facts(link));
    }
    for link in addresses.iter().filter(|link| !is_lab_device(text(link, "ifname"))) {
        let addresses = link["addr_info"].as_array().unwrap().iter();
        facts.extend(addresses.map(|address| {
            format!("address {}/{} on {}", text(address, "local"), address["prefixlen"], text(link, "ifname"))
        }));
    }
    let is_route = |route: &&Value| !is_lab_device(text(route, "dev")) && route["table"] != "local";
    facts.extend(routes.iter().filter(is_route).map(|route| {
        format!("route {} by {} from {}", text(route, "dst"), text(route, "dev"), text(route, "prefsrc"))
    }));
    facts.extend(fdb.iter().filter_map(|entry| fdb_fact(entry, &links)));
    facts.extend(
        ports.iter().map(|port| {
            format!("port {} locked={} learning={}", text(port, "ifname"), port["locked"], port["learning"])
        }),
    );
    let is_device_line = |line: &&str| !line.is_empty() && !line.starts_with("Unable to access interface");
    facts.extend(wg.lines().filter(is_device_line).map(wg_fact));
    let device = |link: &&Value| {
        let alias = link["ifalias"].as_str()?;
        Some((format!("{} {alias}", text(link, "ifname")), link["ifindex"].as_u64()?))
    };
    let devices = links.iter().filter_map(device).collect();
    ObservedState { facts, devices }
}

fn parse_list(output: &str) -> Vec<Value> {
    if output.trim().is_empty() { Vec::new() } else { serde_json::from_str(output).unwrap() }
}

fn link_facts(link: &Value) -> impl Iterator<Item = String> {
    let (name, info) = (text(link, "ifname"), &link["linkinfo"]);
    let up = if link["flags"].as_array().unwrap().contains(&"UP".into()) { "up" } else { "down" };
    let kind = text(info, "info_kind");
    // The kind of the mesh's device depends on the engine.
    let kind = if name == "otwg0" { String::new() } else { format!(" kind={kind}") };
    let (mtu, master, alias) = (&link["mtu"], text(link, "master"), text(link, "ifalias"));
    let fact = format!("link {name}{kind} mtu={mtu} {up} master={master} alias={alias}");
    let vtep = (info["info_kind"] == "vxlan").then(|| {
        let data = &info["info_data"];
        let local = text(data, "local");
        let mut fact =
            format!("vtep {name} vni={} local={local} port={} learning={}", data["id"], data["port"], data["learning"]);
        for field in ["remote", "group", "link", "external"].into_iter().filter(|field| !data[field].is_null()) {
            fact.push_str(&format!(" {field}={}", data[field]));
        }
        fact
    });
    [Some(fact), vtep].into_iter().flatten()
}

/// An entry of a forwarding database, unless the kernel added it by itself: for a device's own address, or a multicast
/// group.
fn fdb_fact(entry: &Value, links: &[&Value]) -> Option<String> {
    let [mac, device, master, state] = ["mac", "ifname", "master", "state"].map(|field| text(entry, field));
    if let Some(node) = entry["dst"].as_str() {
        let mut fact = format!("forward {mac} by {device} to {node} {state}");
        for field in ["port", "vni", "viaIf", "vlan"].into_iter().filter(|field| !entry[field].is_null()) {
            fact.push_str(&format!(" {field}={}", entry[field]));
        }
        return Some(fact);
    }
    let is_own = |link: &&&Value| [device, master].contains(&text(link, "ifname")) && text(link, "address") == mac;
    let is_kernel_entry = state == "permanent" && links.iter().any(|link| is_own(&link));
    let is_group = entry["master"].is_null() && !device.starts_with("otvx");
    let vlan = entry["vlan"].as_u64().map(|vlan| format!(" vlan={vlan}")).unwrap_or_default();
    let is_ignored = is_lab_device(device) || is_kernel_entry || is_group;
    (!is_ignored).then(|| format!("fdb entry {mac} at {device} of {master} {state}{vlan}"))
}

/// A line of `wg show otwg0 dump`: of the device, or of a peer. Any other line is a fact as it is.
fn wg_fact(line: &str) -> String {
    match line.split('\t').collect::<Vec<_>>()[..] {
        [_private, key, port, "off"] => format!("mesh key={key} port={port}"),
        [key, "(none)", endpoint, allowed, _handshake, _rx, _tx, keepalive] => {
            format!("peer {key} at {endpoint} allowed={allowed} keepalive={keepalive}")
        }
        _ => line.to_owned(),
    }
}
