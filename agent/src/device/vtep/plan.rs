//! Plans VTEPs and their forwarding.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;

use super::action::{ChangeForwarding, CreateVtep, ForwardingChanges, RepairVtep};
use super::observe::{MeshProblem, mesh_problem, same_vni, unreachable_node};
use super::text;
use crate::device::nat::observe::NatState;
use crate::device::port::action::PortChanges;
use crate::engine::kind::PlannedOutcome;
use crate::engine::text::{waiting_for_bridge, waiting_for_removal};
use crate::engine::{PlanContext, Subject};
use crate::model::bridge_port::{BridgePort, FdbEntry};
use crate::model::desired::{DesiredBridge, DesiredOverlay, DesiredVtep};
use crate::model::link::{BRIDGE, Link, VXLAN};
use crate::model::link_group::LinkGroup;
use crate::model::owner::temporary_vtep_name;
use crate::model::vxlan::{Frames, RemoteEntry, Vxlan};

pub(super) fn overlay(context: &mut PlanContext<'_>, id: NetworkId, overlay: &DesiredOverlay) -> PlannedOutcome {
    let DesiredOverlay { bridge, vtep, remote: _, flood: _ } = overlay;
    let (ours, extra) = context.survey.best_of(id.uuid(), VXLAN, &vtep.name);
    context.remove_extra(extra);
    let problem = mesh_problem(context.observed, vtep.local);
    let ours = match (ours, &problem) {
        (Some(link), Some(MeshProblem::Absent(why))) => return Some(context.remove_first(link, why.clone())),
        (Some(link), Some(MeshProblem::Conflict(why))) => {
            let _waits_for_the_conflict = context.remove_first(link, why.clone());
            return Some(Outcome::Failed(why.clone()));
        }
        (Some(link), _) if link.vxlan != Some(Vxlan::ours(vtep.vni.get(), vtep.port, vtep.local)) => {
            let why = problem.map_or_else(|| text::recreating(link), MeshProblem::into_text);
            return Some(context.remove_first(link, why));
        }
        (None, Some(MeshProblem::Absent(why) | MeshProblem::Faulty(why))) => {
            return Some(Outcome::Pending(why.clone()));
        }
        (None, Some(MeshProblem::Conflict(why))) => return Some(Outcome::Failed(why.clone())),
        (ours, _) => ours,
    };
    let Some(bridge) = context.survey.best_of(id.uuid(), BRIDGE, &bridge.name).0 else {
        return Some(Outcome::Pending(waiting_for_bridge(&bridge.name)));
    };
    match ours {
        Some(link) => {
            let outcome = repair(context, id, overlay, link, bridge)?;
            if outcome != Outcome::Ready {
                return Some(outcome);
            }
            let fault = problem.map(MeshProblem::into_text).or_else(|| unreachable_node(context.observed, overlay));
            Some(fault.map_or(Outcome::Ready, Outcome::Pending))
        }
        None => create(context, id, overlay, bridge),
    }
}

/// Returns the group of the VTEP of an overlay with this bridge.
fn group(bridge: &DesiredBridge) -> LinkGroup {
    if bridge.nat.is_some() { LinkGroup::GatewayVtep } else { LinkGroup::Vtep }
}

fn repair(
    context: &mut PlanContext<'_>,
    id: NetworkId,
    overlay: &DesiredOverlay,
    link: &Link,
    bridge: &Link,
) -> PlannedOutcome {
    let DesiredOverlay { bridge: DesiredBridge { mtu, allow_spoofing, .. }, vtep, remote: _, flood: _ } = overlay;
    let no_port = BridgePort::default();
    let port = context.observed.ports.get(&link.index).unwrap_or(&no_port);
    let attach = link.master != Some(bridge.index);
    let differs = attach || port.locked == *allow_spoofing || port.learning || port.altered;
    let mut changes = PortChanges {
        name: (link.name != vtep.name).then(|| vtep.name.clone()),
        mtu: (link.mtu != *mtu).then_some(*mtu),
        up: !link.up || attach,
        alias: !context.survey.is_labelled(link),
        group: link.other_group(group(&overlay.bridge)),
        bridge: attach.then_some(bridge.index),
        disable_ipv6: link.ipv6,
        lock: differs && !allow_spoofing,
        unlock: differs && *allow_spoofing,
        unblock: !port.state.is_forwarding() && !attach,
        ..PortChanges::default()
    };
    let forwarding = forwarding_changes(overlay, port, context.is_current);
    if changes == PortChanges::default() && forwarding == ForwardingChanges::default() {
        return context.shared::<NatState>().unprotected().or(Some(Outcome::Ready));
    }
    if let Some(failure) = context.failure(Subject::Network(id)) {
        return Some(failure);
    }
    let mut blocked = None;
    if changes.name.is_some()
        && let Some(holder) = context.survey.named(&vtep.name)
    {
        changes.name = None;
        blocked = Some(context.wait_to_rename(holder, &vtep.name, "network's VTEP", &link.name));
    }
    if changes != PortChanges::default() {
        context.add(RepairVtep { network: id, index: link.index, port: vtep.port, changes });
    }
    // The bridge's forwarding database takes entries only of its ports.
    if forwarding != ForwardingChanges::default() && !attach {
        context.add(ChangeForwarding { network: id, index: link.index, changes: forwarding });
    }
    blocked
}

fn create(context: &mut PlanContext<'_>, id: NetworkId, overlay: &DesiredOverlay, bridge: &Link) -> PlannedOutcome {
    let DesiredOverlay { bridge: DesiredBridge { mtu, allow_spoofing, .. }, vtep, remote: _, flood: _ } = overlay;
    for name in [&vtep.name, &temporary_vtep_name(id)] {
        if let Some(holder) = context.survey.named(name) {
            return Some(context.wait_for_name(holder, name));
        }
    }
    if let Some(outcome) = wait_for_vni(context, vtep) {
        return Some(outcome);
    }
    if let Some(failure) = context.failure(Subject::Network(id)) {
        return Some(failure);
    }
    if let Some(outcome) = context.shared::<NatState>().unprotected() {
        return Some(outcome);
    }
    let changes = PortChanges {
        name: Some(vtep.name.clone()),
        mtu: Some(*mtu),
        up: true,
        alias: true,
        group: Some(group(&overlay.bridge)),
        bridge: Some(bridge.index),
        lock: !allow_spoofing,
        unlock: *allow_spoofing,
        ..PortChanges::default()
    };
    context.add(CreateVtep { network: id, vtep: vtep.clone(), changes });
    None
}

fn wait_for_vni(context: &PlanContext<'_>, vtep: &DesiredVtep) -> Option<Outcome> {
    let other = same_vni(context.observed, vtep)?;
    Some(match context.observed.owner(other) {
        // It is ours, and is being removed.
        Some(_) => Outcome::Pending(waiting_for_removal(&other.name)),
        None => Outcome::Failed(text::vni_conflict(other, vtep.vni)),
    })
}

/// Returns the changes of the forwarding by the VTEP that is this port.
fn forwarding_changes(overlay: &DesiredOverlay, port: &BridgePort, is_current: bool) -> ForwardingChanges {
    let DesiredOverlay { bridge: _, vtep: _, remote, flood } = overlay;
    let BridgePort { locked: _, learning: _, altered: _, state: _, vlans: _, fdb, remotes } = port;
    let mut by_frames: BTreeMap<Frames, BTreeSet<RemoteEntry>> = BTreeMap::new();
    for entry in remotes {
        by_frames.entry(entry.frames).or_default().insert(*entry);
    }
    let mut changes = ForwardingChanges::default();
    let flooded = by_frames.remove(&Frames::Flood).unwrap_or_default();
    changes.add_flood_nodes = missing_flood_nodes(&mut changes.remove_remotes, flood, &flooded, is_current);
    for (mac, node) in remote {
        let current = by_frames.remove(&Frames::Unicast(*mac)).unwrap_or_default();
        if must_set(&mut changes.remove_remotes, RemoteEntry::new(Frames::Unicast(*mac), *node), &current) {
            changes.set_remotes.insert(*mac, *node);
        }
    }
    if is_current {
        changes.remove_remotes.extend(by_frames.into_keys().map(RemoteEntry::all));
    }
    let wanted = remote.keys().map(|mac| FdbEntry::of_nic(*mac, None));
    changes.add_fdb_entries = wanted.filter(|entry| !fdb.contains(entry)).collect();
    let is_wanted =
        |entry: &FdbEntry| entry.is_static && entry.vlan.is_none() && (remote.contains_key(&entry.mac) || !is_current);
    changes.remove_fdb_entries = fdb.iter().filter(|entry| !is_wanted(entry)).copied().collect();
    changes
}

/// Returns the nodes to add to the flood list, and adds the entries to remove from it to `removals`.
fn missing_flood_nodes(
    removals: &mut Vec<RemoteEntry>,
    wanted: &BTreeSet<Ipv4Addr>,
    current: &BTreeSet<RemoteEntry>,
    is_current: bool,
) -> BTreeSet<Ipv4Addr> {
    if current.iter().any(|entry| entry.altered || entry.node.is_none()) {
        removals.push(RemoteEntry::all(Frames::Flood));
        return wanted.clone();
    }
    let is_wanted = |entry: &RemoteEntry| entry.node.is_some_and(|node| wanted.contains(&node));
    removals.extend(current.iter().filter(|entry| is_current && !is_wanted(entry)).copied());
    wanted.iter().filter(|node| !current.contains(&RemoteEntry::new(Frames::Flood, **node))).copied().collect()
}

/// Returns whether the entry of a MAC address must be added or replaced, and adds surplus ones to `removals`. Of
/// several wrong entries one is kept, to be replaced.
fn must_set(removals: &mut Vec<RemoteEntry>, wanted: RemoteEntry, current: &BTreeSet<RemoteEntry>) -> bool {
    if current.iter().any(|entry| entry.altered || entry.node.is_none()) {
        removals.push(RemoteEntry::all(wanted.frames));
        return true;
    }
    let kept = current.get(&wanted).or(current.first());
    removals.extend(current.iter().filter(|entry| Some(*entry) != kept).copied());
    kept != Some(&wanted)
}
