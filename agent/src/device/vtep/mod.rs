//! VTEPs, one for each overlay: a port of its bridge that leads to the other nodes.
//!
//! - No VTEP is created before the packet filter protects it, and the table protects it until it is removed.
//! - The source address of a VTEP is the mesh address of the node. While the mesh device lacks that address, there is
//!   no VTEP.
//! - Nothing is learned. The forwarding database of the VTEP has the node of each remote NIC, and a flood list of the
//!   nodes with such NICs. From the VTEP, the bridge accepts only frames of those NICs.
//! - Unless all decisions are known, entries that no known NIC explains stay: they may belong to NICs that are not
//!   known yet.

pub mod action;
mod apply;
mod observe;
mod plan;
mod text;

use std::collections::BTreeSet;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;
use uuid::Uuid;

use crate::engine::kind::{LinkKind, OwnerKind, PlannedOutcome};
use crate::engine::{DeviceKind, Interest, OwnerClaim, PlanContext};
use crate::model::desired::{Desired, DesiredNetwork, Want};
use crate::model::link::{Link, VXLAN};
use crate::model::mesh_device::MESH;

/// The device kind of VTEPs.
pub struct VtepKind;

impl DeviceKind for VtepKind {
    fn name(&self) -> &'static str {
        "vtep"
    }

    fn label(&self) -> &'static str {
        "VTEP"
    }

    fn link_kind(&self) -> Option<LinkKind> {
        Some(LinkKind { info_kind: VXLAN, owner: OwnerKind::Network })
    }

    fn interest(&self, desired: &Desired) -> Interest {
        let is_used = desired.overlays().next().is_some();
        Interest { network_ports: is_used, firewall: is_used, ..Interest::default() }
    }

    fn network_names(&self, network: &DesiredNetwork, names: &mut BTreeSet<String>) {
        if let Want::Overlay(overlay) = &network.want {
            names.extend([overlay.vtep.name.clone(), MESH.to_owned()]);
        }
    }

    fn claim(&self, desired: &Desired, owner: Uuid, _: &Link) -> OwnerClaim {
        match desired.networks.get(&NetworkId::new(owner)).map(|network| &network.want) {
            Some(Want::Overlay(_) | Want::Unsupported(_)) => OwnerClaim::Required,
            Some(Want::Bridge(_) | Want::Unmanaged(_) | Want::Nothing) => OwnerClaim::Obsolete,
            None => OwnerClaim::Unknown,
        }
    }

    fn plan_network(&self, context: &mut PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> PlannedOutcome {
        match &network.want {
            Want::Overlay(overlay) => plan::overlay(context, id, overlay),
            Want::Bridge(_) | Want::Unmanaged(_) | Want::Unsupported(_) | Want::Nothing => Some(Outcome::Ready),
        }
    }
}
