//! Rules that separate other traffic from the mesh and its VXLAN:
//!
//! - forwarded from or to the mesh: dropped, so that no guest behind NAT reaches the VTEPs of other nodes, and no node
//!   reaches a guest except through an overlay;
//! - VXLAN with a VNI of our VTEPs to the node itself: only from the mesh, because a VTEP receives on every address of
//!   the node; that of other programs passes;
//! - VXLAN from our VTEPs: only to the mesh, so that it is never sent unencrypted while the mesh is down.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::net::Ipv4Addr;

use nftnl::expr::InterfaceName;
use nftnl::set::{Set, SetKey};
use nftnl::{Batch, Hook, ProtoFamily, Rule, Table, nft_expr};

use super::sets::VniField;
use super::{BaseChain, FilterChains, UDP, add_base_chain, add_rule};
use crate::model::mesh_device::MESH;

/// The number of the set of VNIs in the batch; `batch.rs` and `uplinks.rs` have 1 to 6.
const VNIS: u32 = 7;

/// The offset of the VNI in a packet with UDP header (8 bytes) and VXLAN header, in bytes.
const VNI_OFFSET: u32 = 8 + 4;

/// What the VTEPs have in common, and their VNIs.
#[derive(Clone, Copy)]
pub(super) struct Vteps<'a> {
    pub(super) local: Ipv4Addr,
    pub(super) port: u16,
    pub(super) vnis: &'a BTreeSet<u32>,
}

pub(super) fn add_rules(batch: &mut Batch, table: &Table, chains: &FilterChains<'_>, vteps: Option<Vteps<'_>>) {
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
    let Some(Vteps { local, port, vnis }) = vteps else { return };
    let mut set = Set::new_named(c"vnis", VNIS, table, ProtoFamily::Ipv4);
    vnis.iter().for_each(|vni| set.add(&VniField::of_vni(*vni)));
    super::add_set(batch, &set);
    add_rule(batch, input, |rule| {
        is_vxlan(rule, port);
        rule.add_expr(&nft_expr!(payload_raw th VNI_OFFSET, VniField::LEN));
        rule.add_expr(&nft_expr!(bitwise mask VniField::MASK, xor 0_u32));
        rule.add_expr(&nft_expr!(lookup & set));
        rule.add_expr(&nft_expr!(meta iifname));
        rule.add_expr(&nft_expr!(cmp != mesh_device()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    let output = add_base_chain(batch, table, c"output", BaseChain::filter(Hook::Out));
    add_rule(batch, &output, |rule| {
        is_vxlan(rule, port);
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
fn is_vxlan(rule: &mut Rule<'_>, port: u16) {
    rule.add_expr(&nft_expr!(meta l4proto));
    rule.add_expr(&nft_expr!(cmp == UDP));
    rule.add_expr(&nft_expr!(payload udp dport));
    rule.add_expr(&nft_expr!(cmp == port.to_be()));
}
