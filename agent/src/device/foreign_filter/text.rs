//! What is told about packet filters that lose packets.

use std::collections::BTreeSet;

use super::observe::Between;
use super::path::Protocol;
use crate::model::filter::walk::{DropCause, DropSource, Maker};
use crate::model::filter::{Family, Hook};
use crate::model::mesh_device::MESH;

/// What a chain loses.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    between: Between,
    protocols: BTreeSet<Protocol>,
    is_certain: bool,
    /// The network does not work without them.
    pub(super) is_vital: bool,
    /// Of those that begin a connection.
    pub(super) requests: bool,
    pub(super) answers: bool,
}

impl Loss {
    pub(super) fn new(between: Between) -> Self {
        Self {
            between,
            protocols: BTreeSet::new(),
            is_certain: false,
            is_vital: false,
            requests: false,
            answers: false,
        }
    }

    /// Adds packets that are lost. What is vital displaces what is not.
    pub(super) fn add(&mut self, between: Between, protocol: Protocol, is_certain: bool, is_vital: bool) {
        if is_vital && !self.is_vital {
            self.protocols.clear();
        }
        if is_vital || !self.is_vital {
            self.between = if self.protocols.is_empty() { between } else { self.between.max(between) };
            self.protocols.insert(protocol);
        }
        self.is_certain |= is_certain;
        self.is_vital |= is_vital;
    }
}

/// Says what a chain loses, and what to add there.
pub(super) fn lost(source: &DropSource, loss: &Loss, bridge: &str) -> String {
    let DropSource { family, table, chain, within, cause, .. } = source;
    let within = within.iter().map(|within| format!(" (in `{within}`)")).collect::<String>();
    let may = if loss.is_certain { "" } else { "may " };
    let verb = match (cause, loss.is_certain) {
        (DropCause::Policy | DropCause::Drops, true) => "drops",
        (DropCause::Policy | DropCause::Drops, false) => "drop",
        (DropCause::Rejects, true) => "rejects",
        (DropCause::Rejects, false) => "reject",
        (DropCause::Queues, true) => "lets a program decide on",
        (DropCause::Queues, false) => "let a program drop",
        (DropCause::Steals, true) => "redirects",
        (DropCause::Steals, false) => "redirect",
        (DropCause::Untracks, true) => "exempts from connection tracking, and so from NAT,",
        (DropCause::Untracks, false) => "exempt from connection tracking, and so from NAT,",
    };
    let what = packets(loss);
    let advice = advice(source, loss, bridge);
    format!("the chain `{family} {table} {chain}`{within} {may}{verb} {what}: {advice}")
}

fn packets(loss: &Loss) -> String {
    let all = [Protocol::Echo, Protocol::Tcp, Protocol::Udp];
    let names = loss.protocols.iter().map(|protocol| match protocol {
        Protocol::Echo => "ICMP echo",
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Arp => "ARP",
    });
    let names: Vec<_> = names.collect();
    let what = if all.iter().all(|protocol| loss.protocols.contains(protocol)) {
        "packets".to_owned()
    } else {
        names.join(" and ")
    };
    match (loss.between, loss.requests) {
        (Between::Guests, _) => format!("{what} between guests"),
        (Between::GuestAndGateway, true) => format!("{what} from guests to the gateway"),
        (Between::GuestAndGateway, false) => format!("{what} from the gateway to guests"),
        (Between::GuestAndOutside, true) => format!("{what} from guests to the outside"),
        (Between::GuestAndOutside, false) => format!("answers to guests from the outside ({what})"),
        (Between::Nodes, _) => "VXLAN between nodes".to_owned(),
    }
}

/// Says what to add, with the commands of the program that made the chain.
fn advice(source: &DropSource, loss: &Loss, bridge: &str) -> String {
    if source.cause == DropCause::Untracks {
        return format!("except those of `{bridge}`");
    }
    let device = if loss.between == Between::Nodes { MESH } else { bridge };
    let commands = match source.maker {
        Maker::Firewalld => {
            vec![format!("firewall-cmd --permanent --zone=trusted --add-interface={device} && firewall-cmd --reload")]
        }
        Maker::Ufw => ufw(source, loss, device),
        Maker::Docker => iptables("DOCKER-USER", source, loss, device),
        Maker::Iptables => iptables(&source.chain, source, loss, device),
        Maker::Nft => nft(source, loss, device),
    };
    if commands.is_empty() {
        return format!("add a rule there that accepts those of `{device}`");
    }
    commands.iter().map(|command| format!("`{command}`")).collect::<Vec<_>>().join(", ")
}

/// Which links the chain knows: of what the device sends, and of what it receives.
fn directions(source: &DropSource, loss: &Loss) -> [bool; 2] {
    match source.hook {
        // Between nodes and between guests, answers come in like the others.
        Hook::Prerouting | Hook::Input | Hook::Ingress => [true, false],
        Hook::Output | Hook::Postrouting | Hook::Egress => [false, true],
        Hook::Forward => [loss.requests, loss.answers],
    }
}

fn ufw(source: &DropSource, loss: &Loss, device: &str) -> Vec<String> {
    let route = if source.hook == Hook::Forward { "route " } else { "" };
    let [from, to] = directions(source, loss);
    let commands = [
        from.then(|| format!("ufw {route}allow in on {device}")),
        to.then(|| format!("ufw {route}allow out on {device}")),
    ];
    commands.into_iter().flatten().collect()
}

fn iptables(chain: &str, source: &DropSource, loss: &Loss, device: &str) -> Vec<String> {
    if is_elsewhere(source, loss) {
        return Vec::new();
    }
    let table = if source.table == "filter" { String::new() } else { format!("-t {} ", source.table) };
    let [from, to] = directions(source, loss);
    let state = if source.hook == Hook::Forward && loss.between == Between::GuestAndOutside {
        " -m conntrack --ctstate ESTABLISHED,RELATED"
    } else {
        ""
    };
    let commands = [
        from.then(|| format!("iptables {table}-I {chain} -i {device} -j ACCEPT")),
        to.then(|| format!("iptables {table}-I {chain} -o {device}{state} -j ACCEPT")),
    ];
    commands.into_iter().flatten().collect()
}

fn nft(source: &DropSource, loss: &Loss, device: &str) -> Vec<String> {
    if is_elsewhere(source, loss) {
        return Vec::new();
    }
    let DropSource { family, table, chain, .. } = source;
    let (input, output) = match family {
        Family::Bridge => ("meta ibrname", "meta obrname"),
        Family::Ip | Family::Inet | Family::Arp => ("iifname", "oifname"),
        Family::Netdev => return Vec::new(),
    };
    let [from, to] = directions(source, loss);
    let state = if source.hook == Hook::Forward && loss.between == Between::GuestAndOutside {
        "ct state established,related "
    } else {
        ""
    };
    let commands = [
        from.then(|| format!("nft insert rule {family} {table} {chain} {input} {device} accept")),
        to.then(|| format!("nft insert rule {family} {table} {chain} {output} {device} {state}accept")),
    ];
    commands.into_iter().flatten().collect()
}

/// Whether the chain does not know our link: answers come in by the uplink, and leave by the bridge.
fn is_elsewhere(source: &DropSource, loss: &Loss) -> bool {
    let is_outside = loss.between == Between::GuestAndOutside;
    match source.hook {
        Hook::Prerouting | Hook::Input => is_outside && loss.answers,
        Hook::Output | Hook::Postrouting => is_outside && loss.requests,
        Hook::Ingress | Hook::Egress => true,
        Hook::Forward => false,
    }
}
