//! Bridges, one for each network. A managed one is created, repaired and removed; an unmanaged one is only checked.

pub mod action;
mod apply;
mod plan;
mod text;

use std::collections::BTreeSet;

use otherix_schemas::id::NetworkId;
use uuid::Uuid;

use crate::engine::kind::{LinkKind, OwnerKind, PlannedOutcome};
use crate::engine::{DeviceKind, Interest, OwnerClaim, PlanContext};
use crate::model::desired::{Desired, DesiredNetwork, Want};
use crate::model::link::{BRIDGE, Link};

/// The device kind of bridges.
pub struct BridgeKind;

impl DeviceKind for BridgeKind {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn link_kind(&self) -> Option<LinkKind> {
        Some(LinkKind { info_kind: BRIDGE, owner: OwnerKind::Network })
    }

    fn interest(&self, desired: &Desired) -> Interest {
        // The VLANs of the bridge itself are read with its ports.
        Interest { network_ports: desired.bridges().any(|bridge| bridge.vlan.is_some()), ..Interest::default() }
    }

    fn network_names(&self, network: &DesiredNetwork, names: &mut BTreeSet<String>) {
        names.extend(network.want.bridge().map(|bridge| bridge.name.clone()));
    }

    fn claim(&self, desired: &Desired, owner: Uuid, link: &Link) -> OwnerClaim {
        match desired.networks.get(&NetworkId::new(owner)).map(|network| &network.want) {
            Some(Want::Bridge(_) | Want::Overlay(_) | Want::Unsupported(_)) => OwnerClaim::Required,
            Some(Want::Unmanaged(_)) => OwnerClaim::Conflict(text::unmanaged_with_alias(link)),
            Some(Want::Nothing) => OwnerClaim::Obsolete,
            None => OwnerClaim::Unknown,
        }
    }

    fn plan_network(&self, context: &mut PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> PlannedOutcome {
        match &network.want {
            Want::Bridge(bridge) => plan::managed(context, id, bridge),
            Want::Overlay(overlay) => plan::managed(context, id, &overlay.bridge),
            Want::Unmanaged(bridge) => Some(plan::unmanaged(context, id, bridge)),
            Want::Unsupported(_) | Want::Nothing => None,
        }
    }
}
