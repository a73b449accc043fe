//! What is told about packet filters that lose packets.

use std::collections::BTreeSet;

use super::observe::Between;
use super::way::Protocol;
use crate::model::filter::walk::{Culprit, Deed, Maker};
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
pub(super) fn lost(culprit: &Culprit, loss: &Loss, bridge: &str) -> String {
    let Culprit { family, table, chain, within, deed, .. } = culprit;
    let within = within.iter().map(|within| format!(" (in `{within}`)")).collect::<String>();
    let may = if loss.is_certain { "" } else { "may " };
    let verb = match (deed, loss.is_certain) {
        (Deed::Policy | Deed::Drops, true) => "drops",
        (Deed::Policy | Deed::Drops, false) => "drop",
        (Deed::Rejects, true) => "rejects",
        (Deed::Rejects, false) => "reject",
        (Deed::Queues, true) => "lets a program decide on",
        (Deed::Queues, false) => "let a program drop",
        (Deed::Steals, true) => "redirects",
        (Deed::Steals, false) => "redirect",
        (Deed::Untracks, true) => "exempts from connection tracking, and so from NAT,",
        (Deed::Untracks, false) => "exempt from connection tracking, and so from NAT,",
    };
    let what = packets(loss);
    let advice = advice(culprit, loss, bridge);
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
fn advice(culprit: &Culprit, loss: &Loss, bridge: &str) -> String {
    if culprit.deed == Deed::Untracks {
        return format!("except those of `{bridge}`");
    }
    let device = if loss.between == Between::Nodes { MESH } else { bridge };
    let commands = match culprit.maker {
        Maker::Firewalld => {
            vec![format!("firewall-cmd --permanent --zone=trusted --add-interface={device} && firewall-cmd --reload")]
        }
        Maker::Ufw => ufw(culprit, loss, device),
        Maker::Docker => iptables("DOCKER-USER", culprit, loss, device),
        Maker::Iptables => iptables(&culprit.chain, culprit, loss, device),
        Maker::Nft => nft(culprit, loss, device),
    };
    if commands.is_empty() {
        return format!("add a rule there that accepts those of `{device}`");
    }
    commands.iter().map(|command| format!("`{command}`")).collect::<Vec<_>>().join(", ")
}

/// Which links the chain knows: of what the device sends, and of what it receives.
fn directions(culprit: &Culprit, loss: &Loss) -> [bool; 2] {
    match culprit.hook {
        // Between nodes and between guests, answers come in like the others.
        Hook::Prerouting | Hook::Input | Hook::Ingress => [true, false],
        Hook::Output | Hook::Postrouting | Hook::Egress => [false, true],
        Hook::Forward => [loss.requests, loss.answers],
    }
}

fn ufw(culprit: &Culprit, loss: &Loss, device: &str) -> Vec<String> {
    let route = if culprit.hook == Hook::Forward { "route " } else { "" };
    let [from, to] = directions(culprit, loss);
    let commands = [
        from.then(|| format!("ufw {route}allow in on {device}")),
        to.then(|| format!("ufw {route}allow out on {device}")),
    ];
    commands.into_iter().flatten().collect()
}

fn iptables(chain: &str, culprit: &Culprit, loss: &Loss, device: &str) -> Vec<String> {
    if is_elsewhere(culprit, loss) {
        return Vec::new();
    }
    let table = if culprit.table == "filter" { String::new() } else { format!("-t {} ", culprit.table) };
    let [from, to] = directions(culprit, loss);
    let state = if culprit.hook == Hook::Forward && loss.between == Between::GuestAndOutside {
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

fn nft(culprit: &Culprit, loss: &Loss, device: &str) -> Vec<String> {
    if is_elsewhere(culprit, loss) {
        return Vec::new();
    }
    let Culprit { family, table, chain, .. } = culprit;
    let (input, output) = match family {
        Family::Bridge => ("meta ibrname", "meta obrname"),
        Family::Ip | Family::Inet | Family::Arp => ("iifname", "oifname"),
        Family::Netdev => return Vec::new(),
    };
    let [from, to] = directions(culprit, loss);
    let state = if culprit.hook == Hook::Forward && loss.between == Between::GuestAndOutside {
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
fn is_elsewhere(culprit: &Culprit, loss: &Loss) -> bool {
    let is_outside = loss.between == Between::GuestAndOutside;
    match culprit.hook {
        Hook::Prerouting | Hook::Input => is_outside && loss.answers,
        Hook::Output | Hook::Postrouting => is_outside && loss.requests,
        Hook::Ingress | Hook::Egress => true,
        Hook::Forward => false,
    }
}
