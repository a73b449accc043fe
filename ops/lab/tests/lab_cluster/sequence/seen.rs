//! The state of a machine, as the independent tools `ip`, `bridge` and `wg` report it, except what the lab itself
//! created (the loopback and the link to the underlay) and what the kernel adds by itself.

use std::collections::BTreeMap;

use serde_json::Value;

use super::model::Facts;
use crate::lab::Lab;

/// What is looked at, each by one command. Without its device `wg` says nothing.
const LOOKS: [&str; 6] = [
    "ip -d -j link",
    "ip -4 -j address",
    "ip -4 -j route show table all",
    "bridge -j fdb",
    "bridge -d -j link",
    "wg show otwg0 dump 2>&1 || true",
];

/// Stands between what two commands said.
const MARK: &str = "----";

/// What a machine has.
pub(super) struct Seen {
    pub(super) facts: Facts,
    /// The devices that bear an alias, by name and alias: which of their kind they are.
    pub(super) devices: BTreeMap<String, u64>,
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("-")
}

fn is_labs(device: &str) -> bool {
    matches!(device, "lo" | "eth0")
}

/// Looks at a machine.
pub(super) fn look(lab: &Lab, machine: &str) -> Seen {
    let script = LOOKS.join(&format!("; echo {MARK}; "));
    let said = lab.lab(&["exec", machine, "--", "sh", "-c", &script]);
    let said: Vec<&str> = said.split(MARK).collect();
    let [links, addresses, routes, fdb, ports, wg] = <[&str; 6]>::try_from(said).unwrap();
    let [links, addresses, routes, fdb, ports] = [links, addresses, routes, fdb, ports].map(list);
    let links: Vec<&Value> = links.iter().filter(|link| !is_labs(text(link, "ifname"))).collect();
    let mut facts = Facts::new();
    for link in &links {
        facts.extend(link_facts(link));
    }
    for link in addresses.iter().filter(|link| !is_labs(text(link, "ifname"))) {
        let addresses = link["addr_info"].as_array().unwrap().iter();
        facts.extend(addresses.map(|address| {
            format!("address {}/{} on {}", text(address, "local"), address["prefixlen"], text(link, "ifname"))
        }));
    }
    let is_route = |route: &&Value| !is_labs(text(route, "dev")) && route["table"] != "local";
    facts.extend(routes.iter().filter(is_route).map(|route| {
        format!("route {} by {} from {}", text(route, "dst"), text(route, "dev"), text(route, "prefsrc"))
    }));
    facts.extend(fdb.iter().filter_map(|entry| fdb_fact(entry, &links)));
    facts.extend(
        ports.iter().map(|port| {
            format!("port {} locked={} learning={}", text(port, "ifname"), port["locked"], port["learning"])
        }),
    );
    let is_of_device = |line: &&str| !line.is_empty() && !line.starts_with("Unable to access interface");
    facts.extend(wg.lines().filter(is_of_device).map(wg_fact));
    let device = |link: &&Value| {
        let alias = link["ifalias"].as_str()?;
        Some((format!("{} {alias}", text(link, "ifname")), link["ifindex"].as_u64()?))
    };
    let devices = links.iter().filter_map(device).collect();
    Seen { facts, devices }
}

fn list(said: &str) -> Vec<Value> {
    if said.trim().is_empty() { Vec::new() } else { serde_json::from_str(said).unwrap() }
}

fn link_facts(link: &Value) -> impl Iterator<Item = String> {
    let (name, info) = (text(link, "ifname"), &link["linkinfo"]);
    let up = if link["flags"].as_array().unwrap().contains(&"UP".into()) { "up" } else { "down" };
    let kind = text(info, "info_kind");
    // The mesh's device is of one kind or another.
    let kind = if name == "otwg0" { String::new() } else { format!(" kind={kind}") };
    let (mtu, master, alias) = (&link["mtu"], text(link, "master"), text(link, "ifalias"));
    let fact = format!("link {name}{kind} mtu={mtu} {up} master={master} alias={alias}");
    let vtep = (info["info_kind"] == "vxlan").then(|| {
        let data = &info["info_data"];
        let local = text(data, "local");
        let mut fact =
            format!("vtep {name} vni={} local={local} port={} learning={}", data["id"], data["port"], data["learning"]);
        for odd in ["remote", "group", "link", "external"].into_iter().filter(|odd| !data[odd].is_null()) {
            fact.push_str(&format!(" {odd}={}", data[odd]));
        }
        fact
    });
    [Some(fact), vtep].into_iter().flatten()
}

/// An entry of a forwarding database, unless the kernel made it unasked: for a device's own address, or a group that it
/// listens to.
fn fdb_fact(entry: &Value, links: &[&Value]) -> Option<String> {
    let [mac, device, master, state] = ["mac", "ifname", "master", "state"].map(|field| text(entry, field));
    if let Some(node) = entry["dst"].as_str() {
        let mut fact = format!("forward {mac} by {device} to {node} {state}");
        for odd in ["port", "vni", "viaIf", "vlan"].into_iter().filter(|odd| !entry[odd].is_null()) {
            fact.push_str(&format!(" {odd}={}", entry[odd]));
        }
        return Some(fact);
    }
    let is_own = |link: &&&Value| [device, master].contains(&text(link, "ifname")) && text(link, "address") == mac;
    let is_of_kernel = state == "permanent" && links.iter().any(|link| is_own(&link));
    let is_group = entry["master"].is_null() && !device.starts_with("otvx");
    let vlan = entry["vlan"].as_u64().map(|vlan| format!(" vlan={vlan}")).unwrap_or_default();
    let is_left_out = is_labs(device) || is_of_kernel || is_group;
    (!is_left_out).then(|| format!("fdb entry {mac} at {device} of {master} {state}{vlan}"))
}

/// A line of `wg show otwg0 dump`: of the device, or of a peer. What says something else is a fact of its own.
fn wg_fact(line: &str) -> String {
    match line.split('\t').collect::<Vec<_>>()[..] {
        [_private, key, port, "off"] => format!("mesh key={key} port={port}"),
        [key, "(none)", endpoint, allowed, _handshake, _rx, _tx, keepalive] => {
            format!("peer {key} at {endpoint} allowed={allowed} keepalive={keepalive}")
        }
        _ => line.to_owned(),
    }
}
