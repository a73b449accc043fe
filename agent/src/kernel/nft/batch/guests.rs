//! The guest filter: rules that are the same for all networks, because our links are in groups ([`LinkGroup`]), and the
//! addresses of single taps are in sets.
//!
//! - `ip`: on a bridge without a gateway the node receives nothing, and forwards nothing from or to it;
//! - `arp`: on such a bridge the node neither answers nor asks;
//! - `ip6`: on all bridges of ours the node receives, sends and forwards nothing, even while IPv6 is enabled on them;
//! - `bridge`: from taps and VTEPs no frames with a VLAN tag, no frames to bridges and switches (spanning tree, LLDP,
//!   CDP), nothing that only routers send (router advertisements, redirects, queries of multicast routers), and no
//!   answers of DHCP servers, nor what hides them from these rules: LLC/SNAP, and IPv6 fragments whose first does not
//!   contain all headers; from taps of networks that assign addresses, no questions for DHCP servers, which the node's
//!   responder has received before, nothing to the MAC address of its gateway, and nothing with other addresses than
//!   the assigned ones ([`super::locks`]); from taps of networks without a gateway, and from VTEPs, nothing to the node
//!   itself; over VTEPs of overlays with NAT egress, nothing from or to the gateway, which each node has.
//!
//! Packets that `bridge-nf-call-*` passes to the first three are bridged within one bridge: they are received on it and
//! sent to it.

use std::ffi::{CStr, CString};

use nftnl::set::{Set, SetKey};
use nftnl::{Batch, Chain, Hook, MsgType, ProtoFamily, Rule, Table, nft_expr};

use super::locks::{self, LockSets};
use super::sets::{FrameType, Icmpv6Type, IgmpType, Port, Protocol};
use super::{BaseChain, UDP, add_base_chain, add_rule, add_set, delete_table, encode};
use crate::kernel::nft::expression::{AfterFragmentHeader, GroupOf};
use crate::kernel::nft::tables::{FAMILY_ARP, FAMILY_BRIDGE, FAMILY_IPV4, FAMILY_IPV6};
use crate::model::desired::GATEWAY_MAC;
use crate::model::firewall::GUEST_TABLES;
use crate::model::link_group::LinkGroup;
use crate::model::tap_lock::TapLocks;

/// Types of frames with a VLAN tag (`ETH_P_8021Q`, `ETH_P_8021AD`, `ETH_P_QINQ1` to `3`), and of those between a host
/// and its switch: `ETH_P_PAUSE`, `ETH_P_SLOW` (LACP), `ETH_P_PAE` and `ETH_P_LLDP`.
const NOT_OF_HOSTS: [u16; 9] = [0x8100, 0x88a8, 0x9100, 0x9200, 0x9300, 0x8808, 0x8809, 0x888e, 0x88cc];
pub(super) const ETH_P_IPV6: u16 = 0x86dd;
/// `ETH_P_802_3_MIN`: a smaller number is a length, and an LLC header follows. That of SNAP has these addresses.
const ETH_P_802_3_MIN: u16 = 0x0600;
const SNAP: [u8; 2] = [0xaa, 0xaa];
/// `IPPROTO_ICMPV6` and `IPPROTO_IGMP`, with the types of messages that only routers send: router advertisement,
/// redirect; queries and advertisements of multicast routers, to which a bridge with snooping sends all groups.
pub(super) const ICMPV6: u8 = 58;
const ICMPV6_OF_ROUTERS: [u8; 4] = [134, 137, 130, 151];
const IGMP: u8 = 2;
const IGMP_OF_ROUTERS: [u8; 2] = [0x11, 0x30];
/// The ports of clients of DHCP and DHCPv6. Some clients do not check a server's port.
const DHCP_CLIENTS: [u16; 2] = [68, 546];
/// The port of DHCP servers.
const DHCP_SERVER: u16 = 67;
/// Headers that may follow a fragment header and precede the transport header: hop-by-hop and destination options,
/// routing, another fragment header, authentication, mobility, HIP and shim6. Hosts send none of them in fragments.
const EXTENSIONS: [u8; 8] = [0, 60, 43, 44, 51, 135, 139, 140];

/// Addresses of frames for bridges and switches, with a mask: 01:80:c2:00:00:0x, :2x and :3x of IEEE 802.1, and all
/// groups of Cisco, such as CDP and PVST+.
const CONTROL: [([u8; 6], [u8; 6]); 3] = [
    ([0x01, 0x80, 0xc2, 0, 0, 0], [0xff, 0xff, 0xff, 0xff, 0xff, 0xd0]),
    ([0x01, 0x80, 0xc2, 0, 0, 0x30], [0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]),
    ([0x01, 0x00, 0x0c, 0, 0, 0], [0xff, 0xff, 0xff, 0, 0, 0]),
];

/// The groups of taps.
const TAPS: [LinkGroup; 7] = [
    LinkGroup::IsolatedTap,
    LinkGroup::AssignedTap,
    LinkGroup::SpoofingTap,
    LinkGroup::Tap,
    LinkGroup::GatewayTap,
    LinkGroup::AssignedGatewayTap,
    LinkGroup::SpoofingGatewayTap,
];

/// Those of networks that assign addresses, without a gateway and with one.
const ASSIGNED: [LinkGroup; 2] = [LinkGroup::AssignedTap, LinkGroup::SpoofingTap];
const ASSIGNED_BEHIND_GATEWAY: [LinkGroup; 2] = [LinkGroup::AssignedGatewayTap, LinkGroup::SpoofingGatewayTap];

/// The groups of VTEPs.
const VTEPS: [LinkGroup; 2] = [LinkGroup::Vtep, LinkGroup::GatewayVtep];

/// The number of the first of the sets of locks in the batch.
const LOCKS: u32 = 6;

/// The priority at which a bridge's filter begins (`NF_BR_PRI_NAT_DST_BRIDGED`).
pub(super) const FIRST: i32 = -300;

/// The hooks `input` and `output` of family `arp` have other numbers than elsewhere (`NF_ARP_IN`, `NF_ARP_OUT`).
pub(super) const ARP_INPUT: Hook = Hook::PreRouting;
const ARP_OUTPUT: Hook = Hook::In;

/// Encodes the batch that replaces the tables of these families, with these locks, or removes them.
pub(in crate::kernel::nft) fn replace(families: &[u8], locks: Option<&TapLocks>) -> Vec<u8> {
    let mut batch = Batch::new();
    let tables: Vec<_> = families.iter().filter_map(|family| Some((*family, table(GUEST_TABLES, *family)?))).collect();
    for (family, table) in &tables {
        delete_table(&mut batch, table);
        if let Some(locks) = locks {
            batch.add(table, MsgType::Add);
            match *family {
                FAMILY_IPV4 => add_ipv4(&mut batch, table),
                FAMILY_ARP => add_arp(&mut batch, table),
                FAMILY_IPV6 => add_ipv6(&mut batch, table),
                _ => add_bridge(&mut batch, table, locks),
            }
        }
    }
    encode(batch)
}

/// The table of [`probe`]. It never exists outside a batch.
const PROBE_TABLE: &str = "otherix_probe";

/// Encodes a batch that changes nothing, and that the kernel refuses if it has no packet filter for the family.
pub(in crate::kernel::nft) fn probe(family: u8) -> Vec<u8> {
    let mut batch = Batch::new();
    if let Some(table) = table(PROBE_TABLE, family) {
        batch.add(&table, MsgType::Add);
        let _chain = add_base_chain(&mut batch, &table, c"input", BaseChain::filter(Hook::In));
        batch.add(&table, MsgType::Del);
    }
    encode(batch)
}

pub(super) fn table(name: &str, family: u8) -> Option<Table> {
    let family = match family {
        FAMILY_IPV4 => ProtoFamily::Ipv4,
        FAMILY_ARP => ProtoFamily::Arp,
        FAMILY_IPV6 => ProtoFamily::Ipv6,
        FAMILY_BRIDGE => ProtoFamily::Bridge,
        _ => return None,
    };
    Some(Table::new(CString::new(name).ok()?, family))
}

fn add_ipv4(batch: &mut Batch, table: &Table) {
    const GROUP: u32 = LinkGroup::IsolatedBridge.number();
    let input = add_base_chain(batch, table, c"input", BaseChain::filter(Hook::In));
    add_rule(batch, &input, |rule| drop_in_group(rule, GroupOf::Input, GROUP));
    add_forward(batch, table, u32::MAX, GROUP);
}

fn add_arp(batch: &mut Batch, table: &Table) {
    const GROUP: u32 = LinkGroup::IsolatedBridge.number();
    let chains: [(&CStr, Hook, GroupOf); 2] =
        [(c"input", ARP_INPUT, GroupOf::Input), (c"output", ARP_OUTPUT, GroupOf::Output)];
    for (name, hook, of) in chains {
        let chain = add_base_chain(batch, table, name, BaseChain::filter(hook));
        add_rule(batch, &chain, |rule| drop_in_group(rule, of, GROUP));
    }
}

fn add_ipv6(batch: &mut Batch, table: &Table) {
    let chains: [(&CStr, Hook, GroupOf); 2] =
        [(c"input", Hook::In, GroupOf::Input), (c"output", Hook::Out, GroupOf::Output)];
    for (name, hook, of) in chains {
        let chain = add_base_chain(batch, table, name, BaseChain::filter(hook));
        add_rule(batch, &chain, |rule| {
            in_groups(rule, of, LinkGroup::MASK, LinkGroup::BASE);
            rule.add_expr(&nft_expr!(verdict drop));
        });
    }
    add_forward(batch, table, LinkGroup::MASK, LinkGroup::BASE);
}

/// Adds a chain that drops what is forwarded between links in these groups and others.
fn add_forward(batch: &mut Batch, table: &Table, mask: u32, group: u32) {
    let chain = add_base_chain(batch, table, c"forward", BaseChain::filter(Hook::Forward));
    for (of, other) in [(GroupOf::Input, GroupOf::Output), (GroupOf::Output, GroupOf::Input)] {
        add_rule(batch, &chain, |rule| {
            in_groups(rule, of, mask, group);
            rule.add_expr(&other);
            rule.add_expr(&nft_expr!(bitwise mask mask, xor 0_u32));
            rule.add_expr(&nft_expr!(cmp != group));
            rule.add_expr(&nft_expr!(verdict drop));
        });
    }
}

fn add_bridge(batch: &mut Batch, table: &Table, locks: &TapLocks) {
    let sets = LockSets::new(table, LOCKS, locks);
    sets.add_to(batch);
    add_guest(batch, table);
    add_asking(batch, table);
    let first = BaseChain { priority: FIRST, ..BaseChain::filter(Hook::PreRouting) };
    let receive = add_base_chain(batch, table, c"receive", first);
    add_receive_rules(batch, &receive);
    locks::add_rules(batch, table, &receive, &sets);
    let input = add_base_chain(batch, table, c"input", BaseChain::filter(Hook::In));
    for group in [LinkGroup::IsolatedTap].into_iter().chain(VTEPS).chain(ASSIGNED) {
        add_rule(batch, &input, |rule| drop_in_group(rule, GroupOf::Input, group.number()));
    }
    add_gateway_rules(batch, table, &receive);
}

/// Adds the chain for all guests.
fn add_guest(batch: &mut Batch, table: &Table) {
    let guest = Chain::new(c"guest", table);
    batch.add(&guest, MsgType::Add);
    let types = add_numbers(batch, table, c"types", 1, NOT_OF_HOSTS.map(|kind| FrameType::of(kind.to_be_bytes())));
    add_rule(batch, &guest, |rule| {
        rule.add_expr(&nft_expr!(payload ethernet ethertype));
        rule.add_expr(&nft_expr!(lookup & types));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, &guest, |rule| {
        rule.add_expr(&nft_expr!(payload ethernet ethertype));
        rule.add_expr(&nft_expr!(cmp < ETH_P_802_3_MIN.to_be()));
        rule.add_expr(&nft_expr!(payload_raw ll 14, 2));
        rule.add_expr(&nft_expr!(cmp == SNAP.as_slice()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    for (address, mask) in CONTROL {
        add_rule(batch, &guest, |rule| {
            rule.add_expr(&nft_expr!(payload ethernet daddr));
            rule.add_expr(&nft_expr!(bitwise mask mask.as_slice(), xor [0_u8; 6].as_slice()));
            rule.add_expr(&nft_expr!(cmp == address.as_slice()));
            rule.add_expr(&nft_expr!(verdict drop));
        });
    }
    let icmpv6 = add_numbers(batch, table, c"icmpv6", 2, ICMPV6_OF_ROUTERS.map(|kind| Icmpv6Type::of([kind])));
    drop_transport(batch, &guest, ICMPV6, |rule| {
        rule.add_expr(&nft_expr!(payload_raw th 0, 1));
        rule.add_expr(&nft_expr!(lookup & icmpv6));
    });
    let igmp = add_numbers(batch, table, c"igmp", 3, IGMP_OF_ROUTERS.map(|kind| IgmpType::of([kind])));
    drop_transport(batch, &guest, IGMP, |rule| {
        rule.add_expr(&nft_expr!(payload_raw th 0, 1));
        rule.add_expr(&nft_expr!(lookup & igmp));
    });
    let clients = add_numbers(batch, table, c"clients", 4, DHCP_CLIENTS.map(|port| Port::of(port.to_be_bytes())));
    drop_transport(batch, &guest, UDP, |rule| {
        rule.add_expr(&nft_expr!(payload udp dport));
        rule.add_expr(&nft_expr!(lookup & clients));
    });
    let extensions = add_numbers(batch, table, c"extensions", 5, EXTENSIONS.map(|header| Protocol::of([header])));
    add_rule(batch, &guest, |rule| {
        is_of_type(rule, ETH_P_IPV6);
        rule.add_expr(&AfterFragmentHeader);
        rule.add_expr(&nft_expr!(lookup & extensions));
        rule.add_expr(&nft_expr!(verdict drop));
    });
}

/// Adds the rules about what taps and VTEPs send.
fn add_receive_rules(batch: &mut Batch, receive: &Chain<'_>) {
    for group in TAPS.into_iter().chain(VTEPS) {
        add_rule(batch, receive, |rule| {
            in_groups(rule, GroupOf::Input, u32::MAX, group.number());
            rule.add_expr(&nft_expr!(verdict jump c"guest".to_owned()));
        });
    }
    for group in ASSIGNED.into_iter().chain(ASSIGNED_BEHIND_GATEWAY) {
        add_rule(batch, receive, |rule| {
            in_groups(rule, GroupOf::Input, u32::MAX, group.number());
            rule.add_expr(&nft_expr!(verdict jump c"asking".to_owned()));
        });
    }
    for group in ASSIGNED {
        drop_gateway_mac(batch, receive, (GroupOf::Input, group.number()), false);
    }
}

/// Adds the chain for taps of networks that assign addresses: what their responder has received goes no further.
fn add_asking(batch: &mut Batch, table: &Table) {
    let asking = Chain::new(c"asking", table);
    batch.add(&asking, MsgType::Add);
    drop_transport(batch, &asking, UDP, |rule| {
        rule.add_expr(&nft_expr!(payload udp dport));
        rule.add_expr(&nft_expr!(cmp == DHCP_SERVER.to_be()));
    });
}

/// Adds the rules that keep each node's gateway of an overlay on that node: nothing from or to its MAC address is
/// received from other nodes or sent to them, and nothing that the node itself sends.
fn add_gateway_rules(batch: &mut Batch, table: &Table, receive: &Chain<'_>) {
    const VTEP: u32 = LinkGroup::GatewayVtep.number();
    let leave = add_base_chain(batch, table, c"leave", BaseChain::filter(Hook::PostRouting));
    for (chain, of) in [(receive, GroupOf::Input), (&leave, GroupOf::Output)] {
        drop_gateway_mac(batch, chain, (of, VTEP), false);
        drop_gateway_mac(batch, chain, (of, VTEP), true);
    }
    let output = add_base_chain(batch, table, c"output", BaseChain::filter(Hook::Out));
    add_rule(batch, &output, |rule| drop_in_group(rule, GroupOf::Output, VTEP));
}

/// Adds a rule that drops frames to the MAC address of gateways, or from it.
fn drop_gateway_mac(batch: &mut Batch, chain: &Chain<'_>, (of, group): (GroupOf, u32), is_source: bool) {
    add_rule(batch, chain, |rule| {
        in_groups(rule, of, u32::MAX, group);
        if is_source {
            rule.add_expr(&nft_expr!(payload ethernet saddr));
        } else {
            rule.add_expr(&nft_expr!(payload ethernet daddr));
        }
        rule.add_expr(&nft_expr!(cmp == GATEWAY_MAC.as_slice()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
}

/// Adds a set of numbers.
pub(super) fn add_numbers<'a, K: SetKey>(
    batch: &mut Batch,
    table: &'a Table,
    name: &CStr,
    id: u32,
    keys: impl IntoIterator<Item = K>,
) -> Set<'a, K> {
    let mut set = Set::new_named(name, id, table, table.get_family());
    keys.into_iter().for_each(|key| set.add(&key));
    add_set(batch, &set);
    set
}

/// Adds a rule that drops packets of a transport protocol.
fn drop_transport(batch: &mut Batch, chain: &Chain<'_>, protocol: u8, matches: impl FnOnce(&mut Rule<'_>)) {
    add_rule(batch, chain, |rule| {
        rule.add_expr(&nft_expr!(meta l4proto));
        rule.add_expr(&nft_expr!(cmp == protocol));
        matches(rule);
        rule.add_expr(&nft_expr!(verdict drop));
    });
}

fn drop_in_group(rule: &mut Rule<'_>, of: GroupOf, group: u32) {
    in_groups(rule, of, u32::MAX, group);
    rule.add_expr(&nft_expr!(verdict drop));
}

/// Matches packets whose link is in a group that has this value under the mask.
pub(super) fn in_groups(rule: &mut Rule<'_>, of: GroupOf, mask: u32, value: u32) {
    rule.add_expr(&of);
    if mask != u32::MAX {
        rule.add_expr(&nft_expr!(bitwise mask mask, xor 0_u32));
    }
    rule.add_expr(&nft_expr!(cmp == value));
}

/// Matches frames of this type; those with a VLAN tag have the type of the tag.
pub(super) fn is_of_type(rule: &mut Rule<'_>, kind: u16) {
    rule.add_expr(&nft_expr!(payload ethernet ethertype));
    rule.add_expr(&nft_expr!(cmp == kind.to_be()));
}
