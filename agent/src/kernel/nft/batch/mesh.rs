//! Rules that keep other traffic out of the mesh and its VXLAN:
//!
//! - forwarded from or to the mesh: dropped, so that no guest behind NAT reaches other nodes' VTEPs, and no node
//!   reaches a guest
//!   except through an overlay;
//! - VXLAN to the node itself: only from the mesh, because a VTEP receives on every address of the node;
//! - VXLAN from our VTEPs: only to the mesh, so that it never leaves unencrypted while the mesh is down.

use std::ffi::CString;
use std::net::Ipv4Addr;

use nftnl::expr::InterfaceName;
use nftnl::{Batch, Chain, ChainType, Hook, Rule, Table, nft_expr};

use super::{FILTER, add, base};
use crate::model::mesh_device::MESH;
use crate::model::vxlan::PORT;

/// `IPPROTO_UDP`.
const UDP: u8 = 17;

pub(super) fn fill(
    batch: &mut Batch,
    table: &Table,
    (forward, input): (&Chain<'_>, &Chain<'_>),
    vteps: Option<Ipv4Addr>,
) {
    add(batch, forward, |rule| {
        rule.add_expr(&nft_expr!(meta iifname));
        rule.add_expr(&nft_expr!(cmp == mesh()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add(batch, forward, |rule| {
        rule.add_expr(&nft_expr!(meta oifname));
        rule.add_expr(&nft_expr!(cmp == mesh()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    let Some(local) = vteps else { return };
    add(batch, input, |rule| {
        vxlan(rule);
        rule.add_expr(&nft_expr!(meta iifname));
        rule.add_expr(&nft_expr!(cmp != mesh()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    let output = base(batch, table, c"output", (Hook::Out, FILTER, ChainType::Filter));
    add(batch, &output, |rule| {
        vxlan(rule);
        rule.add_expr(&nft_expr!(payload ipv4 saddr));
        rule.add_expr(&nft_expr!(cmp == local));
        rule.add_expr(&nft_expr!(meta oifname));
        rule.add_expr(&nft_expr!(cmp != mesh()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
}

fn mesh() -> InterfaceName {
    InterfaceName::Exact(CString::new(MESH).unwrap_or_default())
}

fn vxlan(rule: &mut Rule<'_>) {
    rule.add_expr(&nft_expr!(meta l4proto));
    rule.add_expr(&nft_expr!(cmp == UDP));
    rule.add_expr(&nft_expr!(payload udp dport));
    rule.add_expr(&nft_expr!(cmp == PORT.to_be()));
}
