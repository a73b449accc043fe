//! Plans bridges.
//!
//! An unmanaged bridge is ready if there is a bridge of that name, which filters VLANs if its network has a VLAN. Its
//! administrative state, MTU, ports and other settings are up to the operator. It is in no step.

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;

use super::action::{BridgeChanges, BridgeSetting, CreateBridge, RepairBridge};
use super::text;
use crate::device::nat::observe::NatState;
use crate::engine::kind::PlannedOutcome;
use crate::engine::survey::NameHolder;
use crate::engine::{PlanContext, Subject};
use crate::model::bridge_port::{PortVlan, VlanMembership};
use crate::model::desired::DesiredBridge;
use crate::model::ip::Gateway;
use crate::model::link::{BRIDGE, Link};
use crate::model::link_group::LinkGroup;
use crate::model::owner::{is_temporary, temporary_name};

pub(super) fn managed(context: &mut PlanContext<'_>, id: NetworkId, bridge: &DesiredBridge) -> PlannedOutcome {
    let (ours, extra) = context.survey.best_of(id.uuid(), BRIDGE, &bridge.name);
    context.remove_extra(extra);
    match ours {
        Some(link) => repair(context, id, bridge, link),
        None => create(context, id, bridge),
    }
}

fn repair(context: &mut PlanContext<'_>, id: NetworkId, bridge: &DesiredBridge, link: &Link) -> PlannedOutcome {
    let mut changes = BridgeChanges {
        name: (link.name != bridge.name).then(|| bridge.name.clone()),
        mtu: (link.mtu != bridge.mtu).then_some(bridge.mtu),
        mac: bridge.mac.filter(|_| link.mac != bridge.mac),
        up: !link.up,
        alias: !context.survey.is_labelled(link),
        detach: link.master.is_some(),
        group: link.other_group(group(context, id, bridge, link)),
        disable_ipv6: link.ipv6,
        settings: BridgeSetting::changes(link.settings, bridge.vlan.is_some()),
        vlan: node_vlan(context, bridge, link),
    };
    if changes == BridgeChanges::default() {
        return Some(Outcome::Ready);
    }
    if let Some(failure) = context.failure(Subject::Network(id)) {
        return Some(failure);
    }
    let blocked = changes.name.is_some().then(|| rename(context, id, bridge, link, &mut changes)).flatten();
    if changes != BridgeChanges::default() {
        context.add(RepairBridge { network: id, index: link.index, changes });
    }
    blocked
}

/// Returns the group that the bridge must be in.
fn group(context: &PlanContext<'_>, id: NetworkId, bridge: &DesiredBridge, link: &Link) -> LinkGroup {
    if bridge.nat.is_some() && !context.shared::<NatState>().is_kept_out(id) {
        return LinkGroup::GatewayBridge;
    }
    let gateway = bridge.nat.map(Gateway::bridge_address);
    let mut addresses = context.observed.ip.addresses.get(&link.index).into_iter().flatten();
    let former = context.desired.former_addresses.get(&id);
    let is_former = |address| former.is_some_and(|former| former.contains(address));
    let has_address = addresses.any(|address| Some(*address) != gateway && !is_former(address));
    if has_address { LinkGroup::HostBridge } else { LinkGroup::IsolatedBridge }
}

/// Returns the VLANs that the node must be a member of on a bridge with a VLAN, unless it is: with a gateway the
/// network's, otherwise none.
fn node_vlan(context: &PlanContext<'_>, bridge: &DesiredBridge, link: &Link) -> Option<VlanMembership> {
    let vlan = bridge.vlan?;
    let wanted = bridge.nat.map(|_| vlan);
    let current = context.observed.ports.get(&link.index).map(|port| &port.vlans);
    let is_right = current.map_or(wanted.is_none(), |current| current.iter().copied().eq(wanted.map(PortVlan::access)));
    (!is_right).then(|| wanted.into())
}

/// Returns the outcome of a bridge that cannot be renamed back at once. If a bridge of ours has its name and must get
/// another, both get temporary names first.
fn rename(
    context: &mut PlanContext<'_>,
    id: NetworkId,
    bridge: &DesiredBridge,
    link: &Link,
    changes: &mut BridgeChanges,
) -> Option<Outcome> {
    let holder = context.survey.named(&bridge.name)?;
    changes.name = None;
    if let NameHolder::Ours(owned) = holder
        && owned.link.is_bridge()
        && let Some(network) = context.desired.networks.get(&NetworkId::new(owned.owner))
        && network.want.managed_bridge().is_some_and(|other| other.name != bridge.name)
    {
        changes.name = (!is_temporary(&link.name)).then(|| temporary_name(id.uuid()));
        return Some(Outcome::Pending(text::exchanged(&bridge.name, &link.name)));
    }
    Some(context.wait_to_rename(holder, &bridge.name, "network's bridge", &link.name))
}

fn create(context: &mut PlanContext<'_>, id: NetworkId, bridge: &DesiredBridge) -> PlannedOutcome {
    for name in [&bridge.name, &temporary_name(id.uuid())] {
        if let Some(holder) = context.survey.named(name) {
            return Some(context.wait_for_name(holder, name));
        }
    }
    if let Some(failure) = context.failure(Subject::Network(id)) {
        return Some(failure);
    }
    if let Some(conflict) = context.shared::<NatState>().conflict(id) {
        return Some(conflict);
    }
    if !context.claim_name(&bridge.name) {
        return Some(Outcome::Failed(text::claimed_twice(&bridge.name)));
    }
    context.add(CreateBridge { network: id, bridge: bridge.clone() });
    None
}

/// Checks an unmanaged bridge.
pub(super) fn unmanaged(context: &mut PlanContext<'_>, id: NetworkId, bridge: &DesiredBridge) -> Outcome {
    let DesiredBridge { name, mtu, vlan, .. } = bridge;
    match context.survey.named(name) {
        None => Outcome::Failed(text::missing(name)),
        Some(NameHolder::Foreign(link)) if link.is_bridge() => {
            if vlan.is_some() && !link.settings.vlan_filtering {
                return Outcome::Failed(text::no_vlan_filtering(link));
            }
            if link.mtu < *mtu {
                context.warn(id, text::small_mtu(link, *mtu));
            }
            Outcome::Ready
        }
        Some(NameHolder::Foreign(link)) => Outcome::Failed(text::not_a_bridge(link)),
        Some(holder @ (NameHolder::Ours(_) | NameHolder::Incomplete(_) | NameHolder::Alternative(_))) => {
            context.wait_for_name(holder, name)
        }
    }
}
