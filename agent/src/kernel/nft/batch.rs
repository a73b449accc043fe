//! Encodes our tables as one batch that replaces them, with libnftnl. Rules that concern the mesh are in [`mesh`],
//! those between uplinks in [`uplinks`], those for ARP and for frames of taps in [`frames`].
//!
//! - forwarded between two bridges of ours: dropped; frames bridged within one, which pass this filter too if
//!   `bridge-nf-call-iptables` is on, are accepted;
//! - from a bridge of ours to the outside or to the node itself: only with a source address that is reachable through
//!   that bridge, in established connections too, because the reply to an address of another network would be delivered
//!   to that network;
//! - from a bridge of ours to the node itself: only ICMP echo requests to the gateway of that network, questions about
//!   names over TCP to a gateway that resolves them (those over UDP are received on the tap, and dropped here), and
//!   replies to the node, but no ICMP errors: they could be about other connections of the node. This is decided before
//!   translations of other tables, too: services of the node may be in containers, to which its addresses are
//!   translated. The node answers ARP on it for the gateway only (table `arp otherix`);
//! - from a tap: nothing with the address of the gateway as its source (table `bridge otherix`);
//! - forwarded from a bridge of ours to other nodes of the cluster, or to its NATS servers: dropped, because they would
//!   take the guest for this node (docs/adr/0018);
//! - forwarded from a bridge of ours to the outside: not if it belongs to no connection, because it would keep its
//!   source address;
//! - forwarded from the outside to a bridge of ours: only if it belongs to a connection that began inside, or that
//!   such a connection announced;
//! - to a gateway's address from the outside: dropped;
//! - from a bridge of ours to link-local addresses: dropped, because a cloud's metadata service there takes the guest
//!   for this node;
//! - from a bridge of ours to any other link: masqueraded. The source port is not one that only root can use, for which
//!   some servers take it for this node's root.
//!
//! The rules of the single networks are in a chain of their own, which only packets between bridges of ours reach: all
//! others are decided by a few set look-ups, however many networks there are.

mod frames;
pub(super) mod guests;
pub(super) mod locks;
mod mesh;
mod sets;
mod uplinks;

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::net::Ipv4Addr;

use nftnl::expr::{Immediate, InterfaceName, Register, ct::States};
use nftnl::set::{Set, SetKey};
use nftnl::{Batch, Chain, ChainType, Hook, MsgType, Policy, ProtoFamily, Rule, Table, nft_expr};

use self::mesh::Vteps;
use self::sets::{LinkName, Server, WithAddress, set_host_order};
use super::expression::{
    Connection, DestinationType, EXPECTED, Field, LOCAL, Masquerade, REPLY, ReversePath, SecondPart,
};
use super::tables::{FAMILY_ARP, FAMILY_BRIDGE};
use crate::model::firewall::{ClusterAddresses, Ruleset, TABLE};
use crate::model::ip::Gateway;
use crate::model::vxlan::PORT;

const FILTER: i32 = 0;
const SRCNAT: i32 = 100;
/// Between connection tracking and the translation of destinations (`NF_IP_PRI_MANGLE`).
const BEFORE_DSTNAT: i32 = -150;

/// `IPPROTO_ICMP`, `IPPROTO_TCP` and `IPPROTO_UDP`.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// `ICMP_ECHO`.
const ICMP_ECHO: u8 = 8;
/// The port of resolvers.
const DNS: u16 = 53;

/// The link-local addresses, with their mask: they are on the node's links, not on those of guests.
const LINK_LOCAL: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(169, 254, 0, 0), Ipv4Addr::new(255, 255, 0, 0));
/// The source ports of masqueraded packets, first and last.
const GUEST_PORTS: (u16, u16) = (1024, 65_535);

/// Encodes the batch that replaces our tables, or removes them if they are not needed. The error is an invalid link
/// name.
pub(super) fn replace(rules: &Ruleset, families: &[u8]) -> Result<Vec<u8>, String> {
    let name = CString::new(TABLE).map_err(|_| TABLE.to_owned())?;
    let Ruleset { nat_networks, resolvers, vteps, vxlan_port, vnis, uplinks, cluster } = rules;
    let networks = nat_networks.iter().map(|(name, gateway)| {
        let device = CString::new(name.as_str()).map_err(|_| name.clone())?;
        Ok((device, *gateway))
    });
    let networks = networks.collect::<Result<Vec<_>, String>>()?;
    let mut batch = Batch::new();
    let table = Table::new(&name, ProtoFamily::Ipv4);
    delete_table(&mut batch, &table);
    if !rules.is_empty() {
        batch.add(&table, MsgType::Add);
        let forward = add_base_chain(&mut batch, &table, c"forward", BaseChain::filter(Hook::Forward));
        let input = add_base_chain(&mut batch, &table, c"input", BaseChain::filter(Hook::In));
        let chains = FilterChains { forward, input };
        let port = vxlan_port.unwrap_or(PORT);
        mesh::add_rules(&mut batch, &table, &chains, vteps.map(|local| Vteps { local, port, vnis }));
        let bridges = (!networks.is_empty()).then(|| add_bridges(&mut batch, &table, &networks));
        if !uplinks.is_empty() {
            uplinks::add_rules(&mut batch, &table, &chains, uplinks, bridges.as_ref())?;
        }
        if let Some(bridges) = &bridges {
            add_cluster_rules(&mut batch, &table, &chains.forward, bridges, cluster);
            let resolving = nat_networks.iter().zip(&networks).filter(|((name, _), _)| resolvers.contains(*name));
            let resolving: Vec<_> = resolving.map(|(_, network)| network.clone()).collect();
            let resolvers = add_pairs(&mut batch, &table, (c"resolvers", 8), &resolving);
            add_nat_rules(&mut batch, &table, &chains, &networks, &NatSets { bridges, resolvers });
        }
    }
    let table = Table::new(&name, ProtoFamily::Arp);
    if families.contains(&FAMILY_ARP) {
        delete_table(&mut batch, &table);
        if !networks.is_empty() {
            batch.add(&table, MsgType::Add);
            frames::add_arp_rules(&mut batch, &table, &networks);
        }
    }
    let table = Table::new(&name, ProtoFamily::Bridge);
    if families.contains(&FAMILY_BRIDGE) {
        delete_table(&mut batch, &table);
        if !networks.is_empty() {
            batch.add(&table, MsgType::Add);
            frames::add_bridge_rules(&mut batch, &table, &networks);
        }
    }
    Ok(encode(batch))
}

/// Deletes a table, even if it does not exist: it is added first.
fn delete_table(batch: &mut Batch, table: &Table) {
    batch.add(table, MsgType::Add);
    batch.add(table, MsgType::Del);
}

fn encode(batch: Batch) -> Vec<u8> {
    batch.finalize().iter().flatten().copied().collect()
}

/// The base chains for forwarded packets and for those to the node itself.
struct FilterChains<'a> {
    forward: Chain<'a>,
    input: Chain<'a>,
}

/// Sets of bridges of ours.
struct NatSets<'a> {
    bridges: &'a Set<'a, LinkName>,
    /// With the address of the gateway, which resolves names.
    resolvers: Set<'a, WithAddress>,
}

fn add_nat_rules(
    batch: &mut Batch,
    table: &Table,
    chains: &FilterChains<'_>,
    networks: &[(CString, Gateway)],
    NatSets { bridges, resolvers }: &NatSets<'_>,
) {
    let FilterChains { forward, input } = chains;
    let gateways = add_gateways(batch, table, networks);
    let own = add_pairs(batch, table, (c"own", 3), networks);

    let between = add_between(batch, table, networks);
    add_forward_rules(batch, forward, bridges, &between);
    add_rule(batch, input, |rule| {
        from_ours(rule, bridges);
        has_foreign_source(rule);
        rule.add_expr(&nft_expr!(verdict drop));
    });
    let early = BaseChain { priority: BEFORE_DSTNAT, ..BaseChain::filter(Hook::PreRouting) };
    let early = add_base_chain(batch, table, c"arrive", early);
    for chain in [&early, input] {
        add_rule(batch, chain, |rule| {
            from_ours(rule, bridges);
            is_reply(rule, States::ESTABLISHED);
            rule.add_expr(&nft_expr!(verdict accept));
        });
        add_rule(batch, chain, |rule| {
            is_echo_request(rule);
            concerns_own_gateway(rule, &own, Field::Ipv4Destination);
            rule.add_expr(&nft_expr!(verdict accept));
        });
        add_rule(batch, chain, |rule| {
            rule.add_expr(&nft_expr!(meta l4proto));
            rule.add_expr(&nft_expr!(cmp == TCP));
            rule.add_expr(&nft_expr!(payload tcp dport));
            rule.add_expr(&nft_expr!(cmp == DNS.to_be()));
            concerns_own_gateway(rule, resolvers, Field::Ipv4Destination);
            rule.add_expr(&nft_expr!(verdict accept));
        });
    }
    add_rule(batch, &early, |rule| {
        from_ours(rule, bridges);
        rule.add_expr(&nft_expr!(payload ipv4 daddr));
        rule.add_expr(&nft_expr!(bitwise mask LINK_LOCAL.1, xor 0_u32));
        rule.add_expr(&nft_expr!(cmp == LINK_LOCAL.0));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, &early, |rule| {
        from_ours(rule, bridges);
        rule.add_expr(&DestinationType);
        rule.add_expr(&nft_expr!(cmp == LOCAL));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, input, |rule| {
        from_ours(rule, bridges);
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, input, |rule| {
        rule.add_expr(&nft_expr!(meta iifname));
        rule.add_expr(&nft_expr!(cmp != InterfaceName::Exact(c"lo".to_owned())));
        rule.add_expr(&nft_expr!(payload ipv4 daddr));
        rule.add_expr(&nft_expr!(lookup & gateways));
        rule.add_expr(&nft_expr!(verdict drop));
    });

    let srcnat = BaseChain { hook: Hook::PostRouting, priority: SRCNAT, kind: ChainType::Nat };
    let leave = add_base_chain(batch, table, c"leave", srcnat);
    add_rule(batch, &leave, |rule| {
        from_ours(rule, bridges);
        to_ours(rule, bridges);
        rule.add_expr(&nft_expr!(verdict return));
    });
    add_rule(batch, &leave, |rule| {
        from_ours(rule, bridges);
        rule.add_expr(&Immediate::new(GUEST_PORTS.0.to_be(), Register::Reg1));
        rule.add_expr(&Immediate::new(GUEST_PORTS.1.to_be(), Register::Reg2));
        rule.add_expr(&Masquerade { first: Register::Reg1, last: Register::Reg2 });
    });
}

/// Adds the set of the gateways' addresses.
fn add_gateways<'a>(batch: &mut Batch, table: &'a Table, networks: &[(CString, Gateway)]) -> Set<'a, Ipv4Addr> {
    let mut gateways = Set::new_named(c"gateways", 2, table, table.get_family());
    let addresses: BTreeSet<_> = networks.iter().map(|(_, gateway)| gateway.address).collect();
    addresses.iter().for_each(|address| gateways.add(address));
    add_set(batch, &gateways);
    gateways
}

/// Adds the set of our bridges.
fn add_bridges<'a>(batch: &mut Batch, table: &'a Table, networks: &[(CString, Gateway)]) -> Set<'a, LinkName> {
    let mut bridges = Set::new_named(c"bridges", 1, table, table.get_family());
    set_host_order(&bridges);
    networks.iter().for_each(|(device, _)| bridges.add(&LinkName::new(device)));
    add_set(batch, &bridges);
    bridges
}

/// Adds a set of bridges, each with the address of its gateway.
fn add_pairs<'a>(
    batch: &mut Batch,
    table: &'a Table,
    (name, id): (&CStr, u32),
    networks: &[(CString, Gateway)],
) -> Set<'a, WithAddress> {
    let mut pairs = Set::new_named(name, id, table, table.get_family());
    networks.iter().for_each(|(device, gateway)| pairs.add(&WithAddress(LinkName::new(device), gateway.address)));
    add_set(batch, &pairs);
    pairs
}

/// Adds the rules that separate guests from the other nodes and from the control plane.
fn add_cluster_rules(
    batch: &mut Batch,
    table: &Table,
    forward: &Chain<'_>,
    bridges: &Set<'_, LinkName>,
    cluster: &ClusterAddresses,
) {
    let ClusterAddresses { nodes: addresses, nats } = cluster;
    if !addresses.is_empty() {
        let mut nodes = Set::new_named(c"nodes", 4, table, ProtoFamily::Ipv4);
        addresses.iter().for_each(|address| nodes.add(address));
        add_set(batch, &nodes);
        add_rule(batch, forward, |rule| {
            from_ours(rule, bridges);
            rule.add_expr(&nft_expr!(payload ipv4 daddr));
            rule.add_expr(&nft_expr!(lookup & nodes));
            rule.add_expr(&nft_expr!(verdict drop));
        });
    }
    if !nats.is_empty() {
        let mut servers = Set::new_named(c"nats", 5, table, ProtoFamily::Ipv4);
        nats.iter().for_each(|address| servers.add(&Server(*address)));
        add_set(batch, &servers);
        add_rule(batch, forward, |rule| {
            from_ours(rule, bridges);
            rule.add_expr(&nft_expr!(meta l4proto));
            rule.add_expr(&nft_expr!(cmp == TCP));
            rule.add_expr(&nft_expr!(payload ipv4 daddr));
            rule.add_expr(&SecondPart { field: Field::DestinationPort, after: Ipv4Addr::LEN });
            rule.add_expr(&nft_expr!(lookup & servers));
            rule.add_expr(&nft_expr!(verdict drop));
        });
    }
}

/// Adds the rules for forwarded packets. `between` is the chain for those between bridges of ours.
fn add_forward_rules(batch: &mut Batch, forward: &Chain<'_>, bridges: &Set<'_, LinkName>, between: &CStr) {
    add_rule(batch, forward, |rule| {
        from_ours(rule, bridges);
        to_ours(rule, bridges);
        rule.add_expr(&nft_expr!(verdict jump between.to_owned()));
    });
    add_rule(batch, forward, |rule| {
        to_ours(rule, bridges);
        is_reply(rule, States::ESTABLISHED | States::RELATED);
        rule.add_expr(&nft_expr!(verdict accept));
    });
    add_rule(batch, forward, |rule| {
        to_ours(rule, bridges);
        rule.add_expr(&Connection::Status);
        rule.add_expr(&nft_expr!(bitwise mask EXPECTED, xor 0_u32));
        rule.add_expr(&nft_expr!(cmp != 0_u32));
        rule.add_expr(&nft_expr!(verdict accept));
    });
    add_rule(batch, forward, |rule| {
        to_ours(rule, bridges);
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, forward, |rule| {
        from_ours(rule, bridges);
        has_foreign_source(rule);
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, forward, |rule| {
        from_ours(rule, bridges);
        has_state(rule, States::INVALID);
        rule.add_expr(&nft_expr!(verdict drop));
    });
}

/// Matches packets that were received on a bridge of ours.
fn from_ours(rule: &mut Rule<'_>, bridges: &Set<'_, LinkName>) {
    rule.add_expr(&nft_expr!(meta iifname));
    rule.add_expr(&nft_expr!(lookup bridges));
}

/// Matches packets that are sent to a bridge of ours.
fn to_ours(rule: &mut Rule<'_>, bridges: &Set<'_, LinkName>) {
    rule.add_expr(&nft_expr!(meta oifname));
    rule.add_expr(&nft_expr!(lookup bridges));
}

fn add_set<K: SetKey>(batch: &mut Batch, set: &Set<'_, K>) {
    batch.add(set, MsgType::Add);
    batch.add_iter(set.elems_iter(), MsgType::Add);
}

/// Where a base chain is hooked in.
struct BaseChain {
    hook: Hook,
    priority: i32,
    kind: ChainType,
}

impl BaseChain {
    const fn filter(hook: Hook) -> Self {
        Self { hook, priority: FILTER, kind: ChainType::Filter }
    }
}

fn add_base_chain<'a>(batch: &mut Batch, table: &'a Table, name: &CStr, base: BaseChain) -> Chain<'a> {
    let BaseChain { hook, priority, kind } = base;
    let mut chain = Chain::new(name, table);
    chain.set_hook(hook, priority);
    chain.set_type(kind);
    chain.set_policy(Policy::Accept);
    batch.add(&chain, MsgType::Add);
    chain
}

/// Adds a chain for packets between bridges of ours. It accepts those within one, and drops all others. Returns its
/// name.
fn add_between(batch: &mut Batch, table: &Table, networks: &[(CString, Gateway)]) -> CString {
    let chain = Chain::new(c"between", table);
    batch.add(&chain, MsgType::Add);
    for (device, _) in networks {
        add_rule(batch, &chain, |rule| {
            rule.add_expr(&nft_expr!(meta iifname));
            rule.add_expr(&nft_expr!(cmp == InterfaceName::Exact(device.clone())));
            to_device(rule, device);
            rule.add_expr(&nft_expr!(verdict accept));
        });
    }
    add_rule(batch, &chain, |rule| rule.add_expr(&nft_expr!(verdict drop)));
    c"between".to_owned()
}

/// Matches packets from a bridge of ours whose field has the address of the gateway on that bridge.
fn concerns_own_gateway(rule: &mut Rule<'_>, own: &Set<'_, WithAddress>, field: Field) {
    rule.add_expr(&nft_expr!(meta iifname));
    rule.add_expr(&SecondPart { field, after: LinkName::LEN });
    rule.add_expr(&nft_expr!(lookup own));
}

fn is_echo_request(rule: &mut Rule<'_>) {
    rule.add_expr(&nft_expr!(meta l4proto));
    rule.add_expr(&nft_expr!(cmp == ICMP));
    rule.add_expr(&nft_expr!(payload_raw th 0, 1));
    rule.add_expr(&nft_expr!(cmp == ICMP_ECHO));
}

/// Matches packets of connections in one of these states.
fn has_state(rule: &mut Rule<'_>, states: States) {
    rule.add_expr(&nft_expr!(ct state));
    rule.add_expr(&nft_expr!(bitwise mask states.bits(), xor 0_u32));
    rule.add_expr(&nft_expr!(cmp != 0_u32));
}

/// Matches packets of connections in one of these states that go to where the connection began. The others of them are
/// not accepted for that reason: the connection may have begun while the table did not exist.
fn is_reply(rule: &mut Rule<'_>, states: States) {
    has_state(rule, states);
    rule.add_expr(&Connection::Direction);
    rule.add_expr(&nft_expr!(cmp == REPLY));
}

/// Matches packets whose source address is not reachable through the link that they were received on.
fn has_foreign_source(rule: &mut Rule<'_>) {
    rule.add_expr(&ReversePath);
    rule.add_expr(&nft_expr!(cmp == 0_u32));
}

/// Matches packets that are sent to this device.
fn to_device(rule: &mut Rule<'_>, device: &CStr) {
    rule.add_expr(&nft_expr!(meta oifname));
    rule.add_expr(&nft_expr!(cmp == InterfaceName::Exact(device.to_owned())));
}

fn add_rule(batch: &mut Batch, chain: &Chain<'_>, fill: impl FnOnce(&mut Rule<'_>)) {
    let mut rule = Rule::new(chain);
    fill(&mut rule);
    batch.add(&rule, MsgType::Add);
}
