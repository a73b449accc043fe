//! Rules of single networks for ARP, and for the frames of their taps and VTEPs.

use std::ffi::CString;
use std::net::Ipv4Addr;

use nftnl::set::Set;
use nftnl::{Batch, Chain, Hook, Table, nft_expr};

use super::{
    BaseChain, add_base_chain, add_bridges, add_gateways, add_pairs, add_rule, concerns_own_gateway, from_ours, guests,
};
use crate::kernel::nft::expression::{Field, GroupOf};
use crate::model::ip::Gateway;
use crate::model::link_group::LinkGroup;

/// The offset of the operation in an ARP packet, and `ARPOP_REQUEST`.
const ARP_OPERATION: u32 = 6;
const ARP_REQUEST: u16 = 1;
/// `ETH_P_IP` and `ETH_P_ARP`, and the offsets of the sender's address in the packets.
const SOURCES: [(u16, u32); 2] = [(0x0800, 12), (0x0806, 14)];
/// As [`SOURCES`], of the address that ARP asks for.
const TARGET: (u16, u32) = (0x0806, 24);

/// Adds the rules for ARP: on a bridge of ours the node answers requests for the gateway of its network only.
pub(super) fn add_arp_rules(batch: &mut Batch, table: &Table, networks: &[(CString, Gateway)]) {
    let bridges = add_bridges(batch, table, networks);
    let own = add_pairs(batch, table, (c"own", 3), networks);
    let input = add_base_chain(batch, table, c"input", BaseChain::filter(guests::ARP_INPUT));
    add_rule(batch, &input, |rule| {
        concerns_own_gateway(rule, &own, Field::ArpTarget);
        rule.add_expr(&nft_expr!(verdict accept));
    });
    add_rule(batch, &input, |rule| {
        from_ours(rule, &bridges);
        rule.add_expr(&nft_expr!(payload_raw nh ARP_OPERATION, 2));
        rule.add_expr(&nft_expr!(cmp == ARP_REQUEST.to_be()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
}

/// Adds the rules that keep guests from using the address of their gateway, and ARP about the gateway of an overlay on
/// each node.
pub(super) fn add_bridge_rules(batch: &mut Batch, table: &Table, networks: &[(CString, Gateway)]) {
    let gateways = add_gateways(batch, table, networks);
    let first = BaseChain { priority: guests::FIRST, ..BaseChain::filter(Hook::PreRouting) };
    let receive = add_base_chain(batch, table, c"receive", first);
    let leave = add_base_chain(batch, table, c"leave", BaseChain::filter(Hook::PostRouting));
    for group in [LinkGroup::GatewayTap, LinkGroup::AssignedGatewayTap, LinkGroup::SpoofingGatewayTap] {
        SOURCES.into_iter().for_each(|field| drop_gateway(batch, &receive, (GroupOf::Input, group), field, &gateways));
    }
    for (chain, of) in [(&receive, GroupOf::Input), (&leave, GroupOf::Output)] {
        for field in SOURCES.into_iter().chain([TARGET]) {
            drop_gateway(batch, chain, (of, LinkGroup::GatewayVtep), field, &gateways);
        }
    }
}

/// Adds a rule that drops packets of a type that have the address of a gateway at this offset.
fn drop_gateway(
    batch: &mut Batch,
    chain: &Chain<'_>,
    (of, group): (GroupOf, LinkGroup),
    (kind, offset): (u16, u32),
    gateways: &Set<'_, Ipv4Addr>,
) {
    add_rule(batch, chain, |rule| {
        guests::in_groups(rule, of, u32::MAX, group.number());
        guests::is_of_type(rule, kind);
        rule.add_expr(&nft_expr!(payload_raw nh offset, 4));
        rule.add_expr(&nft_expr!(lookup gateways));
        rule.add_expr(&nft_expr!(verdict drop));
    });
}
