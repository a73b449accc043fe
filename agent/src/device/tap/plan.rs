//! Plans taps.

use otherix_schemas::id::NicId;
use otherix_schemas::outcome::Outcome;

use super::action::{CreateTap, RepairTap};
use super::text;
use crate::device::guests::observe::GuestFilterState;
use crate::device::nat::observe::NatState;
use crate::device::port::action::PortChanges;
use crate::engine::kind::PlannedOutcome;
use crate::engine::survey::NameHolder;
use crate::engine::text::{network_failed, waiting_for_bridge};
use crate::engine::{PlanContext, Subject};
use crate::model::bridge_port::{BridgePort, FdbEntry, PortVlan, StpState};
use crate::model::desired::{DesiredBridge, DesiredOverlay, DesiredTap, Want};
use crate::model::link::{BRIDGE, Link, TUN};
use crate::model::link_group::LinkGroup;
use crate::model::owner::temporary_name;

/// The bridge that the tap must be a port of.
struct Attachment<'a> {
    desired: &'a DesiredBridge,
    link: &'a Link,
    /// The group of its taps.
    group: LinkGroup,
}

pub(super) fn nic(context: &mut PlanContext<'_>, id: NicId, tap: &DesiredTap) -> PlannedOutcome {
    let bridge = match attachment(context, tap) {
        Ok(bridge) => bridge,
        Err(outcome) => return Some(outcome),
    };
    let (ours, extra) = context.survey.best_of(id.uuid(), TUN, &tap.name);
    context.remove_extra(extra);
    match ours {
        Some(link) => repair(context, id, tap, &bridge, link),
        None => create(context, id, tap, &bridge),
    }
}

/// Returns the bridge, or the outcome of a NIC that has none.
fn attachment<'a>(context: &PlanContext<'a>, tap: &DesiredTap) -> Result<Attachment<'a>, Outcome> {
    let id = tap.network;
    let Some(network) = context.inputs().desired.networks.get(&id) else {
        return Err(Outcome::Pending(text::waiting_for_network(id)));
    };
    let (desired, link) = match &network.want {
        Want::Nothing => return Err(Outcome::Failed(text::network_deleted(id))),
        Want::Unsupported(why) => return Err(Outcome::Failed(why.clone())),
        Want::Bridge(bridge) | Want::Overlay(DesiredOverlay { bridge, .. }) => {
            (bridge, context.survey.best_of(id.uuid(), BRIDGE, &bridge.name).0)
        }
        Want::Unmanaged(bridge) => match context.survey.named(&bridge.name) {
            Some(NameHolder::Foreign(link)) if link.is_bridge() => (bridge, Some(link)),
            Some(_) | None => (bridge, None),
        },
    };
    let failed = context.outcome(id).and_then(|outcome| match outcome {
        Outcome::Failed(error) => Some(Outcome::Failed(network_failed(error))),
        Outcome::Pending(_) | Outcome::Ready | Outcome::Removed => None,
    });
    let Some(link) = link else {
        return Err(failed.unwrap_or_else(|| Outcome::Pending(waiting_for_bridge(&desired.name))));
    };
    if matches!(network.want, Want::Unmanaged(_)) {
        if let Some(failed) = failed {
            return Err(failed);
        }
        if desired.mtu < link.mtu {
            return Err(Outcome::Failed(text::small_mtu(link, desired.mtu)));
        }
    }
    let has_gateway = desired.nat.is_some() && !context.shared::<NatState>().is_kept_out(id);
    let group = match (&network.want, has_gateway, tap.lease.is_some()) {
        (Want::Unmanaged(_), _, _) => LinkGroup::Tap,
        (_, true, true) if desired.allow_spoofing => LinkGroup::SpoofingGatewayTap,
        (_, true, true) => LinkGroup::AssignedGatewayTap,
        (_, true, false) => LinkGroup::GatewayTap,
        (_, false, true) if desired.allow_spoofing => LinkGroup::SpoofingTap,
        (_, false, true) => LinkGroup::AssignedTap,
        (_, false, false) => LinkGroup::IsolatedTap,
    };
    Ok(Attachment { desired, link, group })
}

fn repair(
    context: &mut PlanContext<'_>,
    id: NicId,
    tap: &DesiredTap,
    bridge: &Attachment<'_>,
    link: &Link,
) -> PlannedOutcome {
    let mut changes = PortChanges {
        name: (link.name != tap.name).then(|| tap.name.clone()),
        mtu: (link.mtu != bridge.desired.mtu).then_some(bridge.desired.mtu),
        up: !link.up,
        alias: !context.survey.is_labelled(link),
        group: link.other_group(bridge.group),
        disable_ipv6: link.ipv6,
        bridge: (link.master != Some(bridge.link.index)).then_some(bridge.link.index),
        ..PortChanges::default()
    };
    if changes.bridge.is_some() {
        // Port settings and forwarding entries are lost when the bridge changes.
        changes = PortChanges {
            name: changes.name,
            alias: changes.alias,
            disable_ipv6: changes.disable_ipv6,
            ..all_changes(tap, bridge)
        };
    } else if let Some(port) = context.observed.ports.get(&link.index) {
        add_port_changes(&mut changes, port, tap, bridge);
    }
    if changes == PortChanges::default() {
        let port = context.observed.ports.get(&link.index);
        return Some(port.map_or(Outcome::Ready, |port| forwarding(tap, port.state, bridge.link)));
    }
    if let Some(failure) = context.failure(Subject::Nic(id)) {
        return Some(failure);
    }
    let mut blocked = None;
    if changes.name.is_some()
        && let Some(holder) = context.survey.named(&tap.name)
    {
        changes.name = None;
        blocked = Some(context.wait_to_rename(holder, &tap.name, "NIC's tap", &link.name));
    }
    if changes != PortChanges::default() {
        context.add(RepairTap { nic: id, index: link.index, changes });
    }
    blocked
}

fn create(context: &mut PlanContext<'_>, id: NicId, tap: &DesiredTap, bridge: &Attachment<'_>) -> PlannedOutcome {
    for name in [&tap.name, &temporary_name(id.uuid())] {
        if let Some(holder) = context.survey.named(name) {
            return Some(context.wait_for_name(holder, name));
        }
    }
    if let Some(failure) = context.failure(Subject::Nic(id)) {
        return Some(failure);
    }
    if let Some(unprotected) = context.shared::<GuestFilterState>().unprotected() {
        return Some(unprotected);
    }
    let changes = all_changes(tap, bridge);
    context.add(CreateTap { nic: id, tap: tap.clone(), changes });
    None
}

/// Returns the outcome of a tap that is as required: it is ready if the bridge forwards its frames.
fn forwarding(tap: &DesiredTap, state: StpState, bridge: &Link) -> Outcome {
    match state {
        StpState::Forwarding => Outcome::Ready,
        StpState::Listening => Outcome::Pending(text::spanning_tree_delay(&tap.name, "listening", &bridge.name)),
        StpState::Learning => Outcome::Pending(text::spanning_tree_delay(&tap.name, "learning", &bridge.name)),
        StpState::Blocking => Outcome::Pending(text::spanning_tree_blocks(&tap.name, "blocking", &bridge.name)),
        StpState::Disabled => Outcome::Pending(text::spanning_tree_blocks(&tap.name, "disabled", &bridge.name)),
    }
}

/// Returns the changes that configure a new tap.
fn all_changes(tap: &DesiredTap, bridge: &Attachment<'_>) -> PortChanges {
    let DesiredBridge { mtu, vlan, allow_spoofing, .. } = bridge.desired;
    PortChanges {
        name: Some(tap.name.clone()),
        mtu: Some(*mtu),
        up: true,
        alias: true,
        group: Some(bridge.group),
        disable_ipv6: false,
        bridge: Some(bridge.link.index),
        lock: !allow_spoofing,
        unlock: *allow_spoofing,
        unblock: false,
        vlan: vlan.map(|vlan| Some(vlan).into()),
        fdb_entry: Some(FdbEntry::of_nic(tap.mac, *vlan)),
        remove_fdb_entries: Vec::new(),
    }
}

/// Adds the changes of the bridge port that a tap is.
fn add_port_changes(changes: &mut PortChanges, port: &BridgePort, tap: &DesiredTap, bridge: &Attachment<'_>) {
    let BridgePort { locked, learning, altered, state, vlans, fdb, remotes: _ } = port;
    let may_spoof = bridge.desired.allow_spoofing;
    let differs = *locked == may_spoof || *learning || *altered;
    (changes.lock, changes.unlock) = (differs && !may_spoof, differs && may_spoof);
    // With a spanning tree, the bridge decides; the kernel refuses to change the state.
    changes.unblock = !state.is_forwarding() && !bridge.link.settings.stp;
    let bridge = bridge.desired;
    if let Some(vlan) = bridge.vlan {
        let is_right = vlans.iter().eq([&PortVlan::access(vlan)]);
        changes.vlan = (!is_right).then(|| Some(vlan).into());
    }
    let wanted = FdbEntry::of_nic(tap.mac, bridge.vlan);
    // With VLAN filtering, the kernel adds an entry without a VLAN for each VLAN of the port.
    let is_wanted = |entry: &FdbEntry| {
        (entry.mac, entry.is_static) == (wanted.mac, true) && (entry.vlan == wanted.vlan || wanted.vlan.is_none())
    };
    // The network may have had a VLAN before: without VLAN filtering, entries with one are not used.
    changes.fdb_entry = (!fdb.iter().any(|entry| is_wanted(entry) && entry.vlan == wanted.vlan)).then_some(wanted);
    // One of a VLAN that the port is not in has no effect, and the kernel does not remove it.
    let is_in = |vlan: Option<u16>| vlan.is_none_or(|vlan| vlans.iter().any(|other| other.id == vlan));
    let unwanted = fdb.iter().filter(|entry| !is_wanted(entry) && is_in(entry.vlan));
    changes.remove_fdb_entries = unwanted.copied().collect();
    if changes.remove_fdb_entries.iter().any(|entry| entry.mac == wanted.mac && entry.vlan.is_none()) {
        // With it, the kernel removes the entries of the port's VLANs.
        changes.fdb_entry = Some(wanted);
    }
}
