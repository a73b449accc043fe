//! VTEPs: one for each overlay, a port of its bridge that leads to the other nodes.
//!
//! - No VTEP is created before the packet filter guards it, and the table guards it until it is gone.
//! - A VTEP's source is the node's mesh address; while the mesh device does not have that address, there is no VTEP.
//! - Nothing is learned: the VTEP's own forwarding database has the node of each remote NIC, and for flooded frames the
//!   nodes that have such NICs; the bridge accepts, from the VTEP, only frames from those NICs.
//! - While the view is not current, entries that it does not explain may belong to NICs that are not known yet, and
//!   stay.

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

/// The kind of VTEPs.
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
