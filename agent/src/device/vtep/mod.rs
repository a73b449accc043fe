//! VTEPs: one for each overlay, a port of its bridge that leads to the other nodes.
//!
//! - No VTEP is created before the packet filter guards it, and the table guards it until it is gone.
//! - A VTEP's source is the node's mesh address; while the mesh device does not have that address, there is no VTEP.
//! - Nothing is learned: the VTEP's own forwarding database has the node of each remote NIC, and for flooded frames the
//!   nodes
//!   that have such NICs; the bridge accepts, from the VTEP, only frames from those NICs.
//! - While the view is not current, entries that it does not explain may belong to NICs that are not known yet, and
//!   stay.

pub mod action;
mod apply;
pub mod desired;
mod observe;
mod plan;
mod text;

use std::collections::BTreeSet;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;
use uuid::Uuid;

use crate::engine::kind::{Links, OwnerKind, Verdict};
use crate::engine::{Claim, DeviceKind, Interest, PlanContext};
use crate::model::desired::{Desired, DesiredNetwork, Want};
use crate::model::link::{Link, VXLAN};
use crate::model::mesh_device::MESH;

/// The kind of VTEPs.
pub struct Vtep;

impl DeviceKind for Vtep {
    fn name(&self) -> &'static str {
        "vtep"
    }

    fn label(&self) -> &'static str {
        "VTEP"
    }

    fn links(&self) -> Option<Links> {
        Some(Links { kind: VXLAN, owner: OwnerKind::Network })
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

    fn claim(&self, desired: &Desired, owner: Uuid, _: &Link) -> Claim {
        match desired.networks.get(&NetworkId::new(owner)).map(|network| &network.want) {
            Some(Want::Overlay(_) | Want::Unsupported(_)) => Claim::Required,
            Some(Want::Bridge(_) | Want::Unmanaged(_) | Want::Nothing) => Claim::Obsolete,
            None => Claim::Unknown,
        }
    }

    fn plan_network(&self, context: &mut PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> Verdict {
        match &network.want {
            Want::Overlay(overlay) => plan::overlay(context, id, overlay),
            Want::Bridge(_) | Want::Unmanaged(_) | Want::Unsupported(_) | Want::Nothing => Some(Outcome::Ready),
        }
    }
}
