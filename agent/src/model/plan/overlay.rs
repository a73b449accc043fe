//! What leads from an overlay to the other nodes: a VTEP as a port of its bridge, and the forwarding from events alone.
//!
//! - No VTEP is made before the packet filter guards it, and the table guards it until it is gone.
//! - A VTEP sends from the node's address in the mesh; without that address on the mesh's device there is none.
//! - Nothing is learnt: the VTEP's own forwarding database has the node of each NIC elsewhere, and for broadcasts the nodes that
//!   have such NICs; the bridge lets in, by the VTEP, frames from those NICs alone.
//! - While the view is not current, entries that it does not account for may belong to NICs that are not known yet, and stay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;

use super::step::{Forwarding, PortChanges, Step};
use super::{Planner, text};
use crate::model::desired::{Desired, DesiredBridge, DesiredOverlay, DesiredVtep};
use crate::model::mesh::MESH;
use crate::model::observed::{Link, Observed};
use crate::model::owner::temporary_vtep_name;
use crate::model::port::{Port, Station};
use crate::model::vxlan::{Frames, Remote, Vxlan};

/// Why no VTEP can send.
enum MeshGap {
    /// The mesh's device lacks the address, or is not there.
    Absent(String),
    /// It is not as it must be, but has the address.
    Down(String),
    /// Somebody else's device has its name.
    Squatter(String),
}

impl Planner<'_> {
    pub(super) fn overlay(&mut self, id: NetworkId, overlay: &DesiredOverlay) -> Option<Outcome> {
        let bridge = self.bridge(id, &overlay.bridge);
        let vtep = self.vtep(id, overlay);
        match bridge? {
            Outcome::Ready => vtep,
            outcome @ (Outcome::Failed(_) | Outcome::Pending(_) | Outcome::Removed) => Some(outcome),
        }
    }

    fn vtep(&mut self, id: NetworkId, overlay: &DesiredOverlay) -> Option<Outcome> {
        let DesiredOverlay { bridge, vtep, remote: _, flood: _ } = overlay;
        let (ours, extra) = self.survey.vtep_of_network(id, &vtep.name);
        for link in extra {
            let blocked = self.remove(link).err();
            self.out.notices.extend(blocked);
        }
        let gap = mesh_gap(self.observed, vtep.local);
        let ours = match (ours, &gap) {
            (Some(link), Some(MeshGap::Absent(why) | MeshGap::Squatter(why))) => {
                let removed = self.remove_vtep(link, why.clone());
                return Some(if matches!(gap, Some(MeshGap::Squatter(_))) {
                    Outcome::Failed(why.clone())
                } else {
                    removed
                });
            }
            (Some(link), _) if link.vxlan != Some(Vxlan::ours(vtep.vni.get(), vtep.local)) => {
                let why = gap.map_or_else(|| text::made_anew(link), MeshGap::into_text);
                return Some(self.remove_vtep(link, why));
            }
            (None, Some(MeshGap::Absent(why) | MeshGap::Down(why))) => return Some(Outcome::Pending(why.clone())),
            (None, Some(MeshGap::Squatter(why))) => return Some(Outcome::Failed(why.clone())),
            (ours, _) => ours,
        };
        let Some(bridge) = self.survey.of_network(id, &bridge.name).0 else {
            return Some(Outcome::Pending(text::waiting_for_bridge(&bridge.name)));
        };
        match ours {
            Some(link) => {
                let outcome = self.keep_vtep(id, overlay, link, bridge)?;
                let blocked = || self.blocked(overlay);
                let down = (outcome == Outcome::Ready).then(|| gap.map(MeshGap::into_text).or_else(blocked)).flatten();
                Some(down.map_or(outcome, Outcome::Pending))
            }
            None => self.create_vtep(id, overlay, bridge),
        }
    }

    /// Why one of the nodes that have NICs of the network is not reached.
    fn blocked(&self, overlay: &DesiredOverlay) -> Option<String> {
        let nodes = &self.observed.mesh_trouble.nodes;
        let (node, why) = overlay.flood.iter().find_map(|node| nodes.get_key_value(node))?;
        Some(text::node_blocked(*node, why))
    }

    /// Removes a VTEP that must not be; says why it waits for that.
    fn remove_vtep(&mut self, link: &Link, why: String) -> Outcome {
        match self.remove(link) {
            Ok(()) => {
                self.out.urgent.insert(link.index);
                Outcome::Pending(why)
            }
            Err(blocked) => Outcome::Failed(blocked),
        }
    }

    /// What a VTEP of ours that is there, and can stay, needs.
    fn keep_vtep(&mut self, id: NetworkId, overlay: &DesiredOverlay, is: &Link, bridge: &Link) -> Option<Outcome> {
        let DesiredOverlay { bridge: DesiredBridge { mtu, .. }, vtep, remote: _, flood: _ } = overlay;
        let nothing = Port::default();
        let port = self.observed.as_ports.get(&is.index).unwrap_or(&nothing);
        let enslave = is.master != Some(bridge.index);
        let mut changes = PortChanges {
            name: (is.name != vtep.name).then(|| vtep.name.clone()),
            mtu: (is.mtu != *mtu).then_some(*mtu),
            up: !is.up || enslave,
            alias: !self.survey.is_labelled(is),
            bridge: enslave.then_some(bridge.index),
            lock: enslave || !port.locked || port.learning || port.altered,
            unblock: port.blocked && !enslave,
            ..PortChanges::default()
        };
        let forwarding = forwarding(overlay, port, self.current);
        if changes == PortChanges::default() && forwarding == Forwarding::default() {
            return self.nat.unguarded().or(Some(Outcome::Ready));
        }
        if let Some(error) = self.failures.networks.get(&id) {
            return Some(Outcome::Failed(error.clone()));
        }
        let mut blocked = None;
        if changes.name.is_some()
            && let Some(holder) = self.survey.named(&vtep.name)
        {
            changes.name = None;
            blocked = Some(match self.wait_for(holder, &vtep.name) {
                Outcome::Failed(why) => Outcome::Failed(text::renamed("network's VTEP", &is.name, &why)),
                outcome @ (Outcome::Pending(_) | Outcome::Ready | Outcome::Removed) => outcome,
            });
        }
        if changes != PortChanges::default() {
            self.out.first.push(Step::RepairVtep { network: id, index: is.index, changes });
        }
        // The bridge knows nobody at what is no port of it.
        if forwarding != Forwarding::default() && !enslave {
            self.out.first.push(Step::Forward { network: id, index: is.index, changes: forwarding });
        }
        blocked
    }

    fn create_vtep(&mut self, id: NetworkId, overlay: &DesiredOverlay, bridge: &Link) -> Option<Outcome> {
        let DesiredOverlay { bridge: DesiredBridge { mtu, .. }, vtep, remote: _, flood: _ } = overlay;
        for name in [&vtep.name, &temporary_vtep_name(id)] {
            if let Some(holder) = self.survey.named(name) {
                return Some(self.wait_for(holder, name));
            }
        }
        if let Some(other) = same_vni(self.observed, vtep) {
            // One of ours goes.
            return Some(match self.observed.owner(other) {
                Some(_) => Outcome::Pending(format!("waiting for removal of `{}`", other.name)),
                None => Outcome::Failed(text::same_vni(other, vtep.vni)),
            });
        }
        if let Some(error) = self.failures.networks.get(&id) {
            return Some(Outcome::Failed(error.clone()));
        }
        if let Some(outcome) = self.nat.unguarded() {
            return Some(outcome);
        }
        let changes = PortChanges {
            name: Some(vtep.name.clone()),
            mtu: Some(*mtu),
            up: true,
            alias: true,
            bridge: Some(bridge.index),
            lock: true,
            ..PortChanges::default()
        };
        self.out.first.push(Step::CreateVtep { network: id, vtep: vtep.clone(), changes });
        None
    }
}

impl MeshGap {
    fn into_text(self) -> String {
        match self {
            Self::Absent(text) | Self::Down(text) | Self::Squatter(text) => text,
        }
    }
}

/// What of the mesh is missing for a VTEP at this address.
fn mesh_gap(observed: &Observed, local: Ipv4Addr) -> Option<MeshGap> {
    let trouble = observed.mesh_trouble.device.as_deref();
    let Some(link) = observed.mesh() else {
        let squatter = observed.named(MESH).map(|link| MeshGap::Squatter(text::squatter(link)));
        return Some(squatter.unwrap_or_else(|| MeshGap::Absent(text::no_mesh(trouble))));
    };
    let mut addresses = observed.ip.addresses.get(&link.index).into_iter().flatten();
    if !addresses.any(|address| address.address == local) {
        return Some(MeshGap::Absent(text::mesh_without_address(local, trouble)));
    }
    if link.name != MESH {
        return Some(MeshGap::Down(text::mesh_renamed(&link.name)));
    }
    let down = (!link.up).then(text::mesh_down);
    trouble.map(text::mesh_trouble).or(down).map(MeshGap::Down)
}

/// Another device with the VTEP's id: the kernel makes no second one.
fn same_vni<'a>(observed: &'a Observed, vtep: &DesiredVtep) -> Option<&'a Link> {
    let Vxlan { vni, port, .. } = Vxlan::ours(vtep.vni.get(), vtep.local);
    observed.links().find(|link| link.vxlan.is_some_and(|is| (is.vni, is.port) == (vni, port)))
}

/// The address that VTEPs send from, if there are to be some, or there still are some that are guarded.
pub(super) fn vteps(desired: &Desired, observed: &Observed) -> Option<Ipv4Addr> {
    let wanted = desired.overlays().next().map(|overlay| overlay.vtep.local);
    let is = observed.firewall.rules.known().and_then(|rules| rules.vteps);
    let are_left = || observed.links().any(|link| link.is_vtep() && observed.owner(link).is_some());
    wanted.or_else(|| is.filter(|_| are_left()))
}

/// What is to be changed about the forwarding by a VTEP that is like this.
fn forwarding(overlay: &DesiredOverlay, port: &Port, current: bool) -> Forwarding {
    let DesiredOverlay { bridge: _, vtep: _, remote, flood } = overlay;
    let Port { locked: _, learning: _, altered: _, blocked: _, vlans: _, stations, remotes } = port;
    let mut by_frames: BTreeMap<Frames, BTreeSet<Remote>> = BTreeMap::new();
    for entry in remotes {
        by_frames.entry(entry.frames).or_default().insert(*entry);
    }
    let mut changes = Forwarding::default();
    let is_flooded = by_frames.remove(&Frames::Flood).unwrap_or_default();
    changes.flood = flood_to(&mut changes.prune, flood, &is_flooded, current);
    for (mac, node) in remote {
        let is = by_frames.remove(&Frames::Station(*mac)).unwrap_or_default();
        if point_to(&mut changes.prune, Remote::new(Frames::Station(*mac), *node), &is) {
            changes.point.insert(*mac, *node);
        }
    }
    if current {
        changes.prune.extend(by_frames.into_keys().map(Remote::all));
    }
    let wanted = remote.keys().map(|mac| Station::of_nic(*mac, None));
    changes.know = wanted.filter(|station| !stations.contains(station)).collect();
    let is_wanted = |is: &Station| is.is_static && is.vlan.is_none() && (remote.contains_key(&is.mac) || !current);
    changes.forget = stations.iter().filter(|is| !is_wanted(is)).copied().collect();
    changes
}

/// The nodes that broadcasts do not go to yet.
fn flood_to(
    prune: &mut Vec<Remote>,
    wanted: &BTreeSet<Ipv4Addr>,
    is: &BTreeSet<Remote>,
    current: bool,
) -> BTreeSet<Ipv4Addr> {
    if is.iter().any(|entry| entry.odd || entry.node.is_none()) {
        prune.push(Remote::all(Frames::Flood));
        return wanted.clone();
    }
    let is_wanted = |entry: &Remote| entry.node.is_some_and(|node| wanted.contains(&node));
    prune.extend(is.iter().filter(|entry| current && !is_wanted(entry)).copied());
    wanted.iter().filter(|node| !is.contains(&Remote::new(Frames::Flood, **node))).copied().collect()
}

/// Whether a station's entry must be made, or pointed to another node. Of several that are wrong, one is left to be.
fn point_to(prune: &mut Vec<Remote>, wanted: Remote, is: &BTreeSet<Remote>) -> bool {
    if is.iter().any(|entry| entry.odd || entry.node.is_none()) {
        prune.push(Remote::all(wanted.frames));
        return true;
    }
    let kept = is.get(&wanted).or(is.first());
    prune.extend(is.iter().filter(|entry| Some(*entry) != kept).copied());
    kept != Some(&wanted)
}
