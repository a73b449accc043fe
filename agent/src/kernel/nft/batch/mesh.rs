//! Rules that separate other traffic from the mesh and its VXLAN:
//!
//! - forwarded from or to the mesh: dropped, so that no guest behind NAT reaches the VTEPs of other nodes, and no node
//!   reaches a guest except through an overlay;
//! - VXLAN to the node itself: only from the mesh, because a VTEP receives on every address of the node;
//! - VXLAN from our VTEPs: only to the mesh, so that it is never sent unencrypted while the mesh is down.

use std::ffi::CString;
use std::net::Ipv4Addr;

use nftnl::expr::InterfaceName;
use nftnl::{Batch, Hook, Rule, Table, nft_expr};

use super::{BaseChain, FilterChains, UDP, add_base_chain, add_rule};
use crate::model::mesh_device::MESH;
use crate::model::vxlan::PORT;

pub(super) fn add_rules(batch: &mut Batch, table: &Table, chains: &FilterChains<'_>, vteps: Option<Ipv4Addr>) {
    let FilterChains { forward, input } = chains;
    add_rule(batch, forward, |rule| {
        rule.add_expr(&nft_expr!(meta iifname));
        rule.add_expr(&nft_expr!(cmp == mesh_device()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, forward, |rule| {
        rule.add_expr(&nft_expr!(meta oifname));
        rule.add_expr(&nft_expr!(cmp == mesh_device()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    let Some(local) = vteps else { return };
    add_rule(batch, input, |rule| {
        is_vxlan(rule);
        rule.add_expr(&nft_expr!(meta iifname));
        rule.add_expr(&nft_expr!(cmp != mesh_device()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    let output = add_base_chain(batch, table, c"output", BaseChain::filter(Hook::Out));
    add_rule(batch, &output, |rule| {
        is_vxlan(rule);
        rule.add_expr(&nft_expr!(payload ipv4 saddr));
        rule.add_expr(&nft_expr!(cmp == local));
        rule.add_expr(&nft_expr!(meta oifname));
        rule.add_expr(&nft_expr!(cmp != mesh_device()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
}

fn mesh_device() -> InterfaceName {
    InterfaceName::Exact(CString::new(MESH).unwrap_or_default())
}

/// Matches VXLAN packets.
fn is_vxlan(rule: &mut Rule<'_>) {
    rule.add_expr(&nft_expr!(meta l4proto));
    rule.add_expr(&nft_expr!(cmp == UDP));
    rule.add_expr(&nft_expr!(payload udp dport));
    rule.add_expr(&nft_expr!(cmp == PORT.to_be()));
}
