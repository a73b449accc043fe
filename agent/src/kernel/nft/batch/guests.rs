//! The guest filter: rules that are the same for all networks, because our links are in groups ([`LinkGroup`]).
//!
//! - `ip`: on a bridge without a gateway the node receives nothing, and forwards nothing from or to it;
//! - `arp`: on such a bridge the node neither answers nor asks;
//! - `ip6`: on all bridges of ours the node receives, sends and forwards nothing, even while IPv6 is enabled on them;
//! - `bridge`: from taps no frames with a VLAN tag, no frames to bridges and switches (spanning tree, LLDP, CDP), no
//!   router advertisements and redirects, and no answers of DHCP servers; from taps of networks without a gateway
//!   nothing to the node itself.
//!
//! Packets that `bridge-nf-call-*` passes to the first three are bridged within one bridge: they are received on it and
//! sent to it.

use std::ffi::{CStr, CString};

use nftnl::{Batch, Chain, Hook, MsgType, ProtoFamily, Rule, Table, nft_expr};

use super::{BaseChain, UDP, add_base_chain, add_rule, delete_table, encode};
use crate::kernel::nft::expression::GroupOf;
use crate::kernel::nft::tables::{FAMILY_ARP, FAMILY_BRIDGE, FAMILY_IPV4, FAMILY_IPV6};
use crate::model::firewall::GUEST_TABLES;
use crate::model::link_group::LinkGroup;

/// `ETH_P_8021Q`, `ETH_P_8021AD` and `ETH_P_QINQ1`.
const TAGGED: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const ETH_P_IPV6: u16 = 0x86dd;
/// `IPPROTO_ICMPV6`, router advertisement, redirect.
const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;
/// The ports of servers and clients of DHCP, and of DHCPv6.
const DHCP: [(u16, u16); 2] = [(67, 68), (547, 546)];

/// Addresses of frames for bridges and switches, with a mask: 01:80:c2:00:00:0x and :2x of IEEE 802.1, and those of CDP
/// and PVST+.
const CONTROL: [([u8; 6], [u8; 6]); 2] = [
    ([0x01, 0x80, 0xc2, 0, 0, 0], [0xff, 0xff, 0xff, 0xff, 0xff, 0xd0]),
    ([0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc], [0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]),
];

/// The priority at which a bridge's filter begins (`NF_BR_PRI_NAT_DST_BRIDGED`).
const FIRST: i32 = -300;

/// The hooks `input` and `output` of family `arp` have other numbers than elsewhere (`NF_ARP_IN`, `NF_ARP_OUT`).
pub(super) const ARP_INPUT: Hook = Hook::PreRouting;
const ARP_OUTPUT: Hook = Hook::In;

/// Encodes the batch that replaces the tables of these families, or removes them.
pub(in crate::kernel::nft) fn replace(families: &[u8], is_wanted: bool) -> Vec<u8> {
    let mut batch = Batch::new();
    let tables: Vec<_> = families.iter().filter_map(|family| Some((*family, table(*family)?))).collect();
    for (family, table) in &tables {
        delete_table(&mut batch, table);
        if is_wanted {
            batch.add(table, MsgType::Add);
            match *family {
                FAMILY_IPV4 => add_ipv4(&mut batch, table),
                FAMILY_ARP => add_arp(&mut batch, table),
                FAMILY_IPV6 => add_ipv6(&mut batch, table),
                _ => add_bridge(&mut batch, table),
            }
        }
    }
    encode(batch)
}

/// Encodes a batch that changes nothing, and that the kernel refuses if it has no packet filter for the family.
pub(in crate::kernel::nft) fn probe(family: u8) -> Vec<u8> {
    let mut batch = Batch::new();
    if let Some(table) = table(family) {
        delete_table(&mut batch, &table);
        batch.add(&table, MsgType::Add);
        let _chain = add_base_chain(&mut batch, &table, c"input", BaseChain::filter(Hook::In));
        batch.add(&table, MsgType::Del);
    }
    encode(batch)
}

fn table(family: u8) -> Option<Table> {
    let family = match family {
        FAMILY_IPV4 => ProtoFamily::Ipv4,
        FAMILY_ARP => ProtoFamily::Arp,
        FAMILY_IPV6 => ProtoFamily::Ipv6,
        FAMILY_BRIDGE => ProtoFamily::Bridge,
        _ => return None,
    };
    Some(Table::new(CString::new(GUEST_TABLES).ok()?, family))
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

fn add_bridge(batch: &mut Batch, table: &Table) {
    let guest = Chain::new(c"guest", table);
    batch.add(&guest, MsgType::Add);
    for kind in TAGGED {
        add_rule(batch, &guest, |rule| {
            is_of_type(rule, kind);
            rule.add_expr(&nft_expr!(verdict drop));
        });
    }
    for (address, mask) in CONTROL {
        add_rule(batch, &guest, |rule| {
            rule.add_expr(&nft_expr!(payload ethernet daddr));
            rule.add_expr(&nft_expr!(bitwise mask mask.as_slice(), xor [0_u8; 6].as_slice()));
            rule.add_expr(&nft_expr!(cmp == address.as_slice()));
            rule.add_expr(&nft_expr!(verdict drop));
        });
    }
    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        add_rule(batch, &guest, |rule| {
            is_of_type(rule, ETH_P_IPV6);
            rule.add_expr(&nft_expr!(meta l4proto));
            rule.add_expr(&nft_expr!(cmp == ICMPV6));
            rule.add_expr(&nft_expr!(payload_raw th 0, 1));
            rule.add_expr(&nft_expr!(cmp == kind));
            rule.add_expr(&nft_expr!(verdict drop));
        });
    }
    for (server, client) in DHCP {
        add_rule(batch, &guest, |rule| {
            rule.add_expr(&nft_expr!(meta l4proto));
            rule.add_expr(&nft_expr!(cmp == UDP));
            rule.add_expr(&nft_expr!(payload udp sport));
            rule.add_expr(&nft_expr!(cmp == server.to_be()));
            rule.add_expr(&nft_expr!(payload udp dport));
            rule.add_expr(&nft_expr!(cmp == client.to_be()));
            rule.add_expr(&nft_expr!(verdict drop));
        });
    }
    let first = BaseChain { priority: FIRST, ..BaseChain::filter(Hook::PreRouting) };
    let receive = add_base_chain(batch, table, c"receive", first);
    for group in [LinkGroup::IsolatedTap, LinkGroup::Tap] {
        add_rule(batch, &receive, |rule| {
            in_groups(rule, GroupOf::Input, u32::MAX, group.number());
            rule.add_expr(&nft_expr!(verdict jump c"guest".to_owned()));
        });
    }
    let input = add_base_chain(batch, table, c"input", BaseChain::filter(Hook::In));
    add_rule(batch, &input, |rule| drop_in_group(rule, GroupOf::Input, LinkGroup::IsolatedTap.number()));
}

fn drop_in_group(rule: &mut Rule<'_>, of: GroupOf, group: u32) {
    in_groups(rule, of, u32::MAX, group);
    rule.add_expr(&nft_expr!(verdict drop));
}

/// Matches packets whose link is in a group that has this value under the mask.
fn in_groups(rule: &mut Rule<'_>, of: GroupOf, mask: u32, value: u32) {
    rule.add_expr(&of);
    if mask != u32::MAX {
        rule.add_expr(&nft_expr!(bitwise mask mask, xor 0_u32));
    }
    rule.add_expr(&nft_expr!(cmp == value));
}

/// Matches frames of this type; those with a VLAN tag have the type of the tag.
fn is_of_type(rule: &mut Rule<'_>, kind: u16) {
    rule.add_expr(&nft_expr!(payload ethernet ethertype));
    rule.add_expr(&nft_expr!(cmp == kind.to_be()));
}
