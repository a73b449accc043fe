//! NICs: each has a tap, a port of its network's bridge that lets in no frames but the NIC's.

use otherix_schemas::id::NicId;
use otherix_schemas::outcome::Outcome;

use super::step::{PortChanges, Step};
use super::survey::Holder;
use super::{Planner, text};
use crate::model::desired::{DesiredBridge, DesiredNic, DesiredOverlay, DesiredTap, Want};
use crate::model::observed::Link;
use crate::model::owner::temporary_name;
use crate::model::port::{Port, PortVlan, Station};

/// Where a tap is to be: the network's bridge as it must be and as it is.
struct Place {
    bridge: DesiredBridge,
    link: Link,
}

impl Planner<'_> {
    pub(super) fn nic(&mut self, id: NicId, nic: &DesiredNic) {
        let outcome = match &nic.tap {
            None => self.remove_all(self.survey.all_of_nic(id)),
            Some(tap) => match self.place(tap) {
                Ok(place) => self.tap(id, tap, &place),
                Err(outcome) => Some(outcome),
            },
        };
        self.out.nics.extend(outcome.map(|outcome| (id, outcome)));
    }

    /// The bridge that the tap is to be a port of; or what it waits for.
    fn place(&self, tap: &DesiredTap) -> Result<Place, Outcome> {
        let id = tap.network;
        let Some(network) = self.desired.networks.get(&id) else {
            return Err(Outcome::Pending(format!("waiting for network `{id}`")));
        };
        let (bridge, link) = match &network.want {
            Want::Nothing => return Err(Outcome::Failed(format!("its network `{id}` is deleted"))),
            Want::Unsupported(what) => return Err(Outcome::Failed(what.clone())),
            Want::Bridge(bridge) | Want::Overlay(DesiredOverlay { bridge, .. }) => {
                (bridge, self.survey.of_network(id, &bridge.name).0)
            }
            Want::Unmanaged(bridge) => match self.survey.named(&bridge.name) {
                Some(Holder::Foreign(link)) if link.is_bridge() => (bridge, Some(link)),
                Some(_) | None => (bridge, None),
            },
        };
        let failed = self.out.outcomes.get(&id).and_then(|outcome| match outcome {
            Outcome::Failed(error) => Some(Outcome::Failed(text::network_failed(error))),
            Outcome::Pending(_) | Outcome::Ready | Outcome::Removed => None,
        });
        let Some(link) = link else {
            return Err(failed.unwrap_or_else(|| Outcome::Pending(text::waiting_for_bridge(&bridge.name))));
        };
        if matches!(network.want, Want::Unmanaged(_)) {
            if let Some(failed) = failed {
                return Err(failed);
            }
            if bridge.mtu < link.mtu {
                return Err(Outcome::Failed(text::narrowing(link, bridge.mtu)));
            }
        }
        Ok(Place { bridge: bridge.clone(), link: link.clone() })
    }

    fn tap(&mut self, id: NicId, tap: &DesiredTap, place: &Place) -> Option<Outcome> {
        let mut taps = self.survey.all_of_nic(id);
        let best = taps.iter().position(|is| is.name == tap.name).unwrap_or(0);
        let ours = (best < taps.len()).then(|| taps.remove(best));
        for extra in taps {
            let blocked = self.remove(extra).err();
            self.out.notices.extend(blocked);
        }
        match ours {
            Some(is) => self.keep_tap(id, tap, place, is),
            None => self.create_tap(id, tap, place),
        }
    }

    /// What a tap of ours that is there needs.
    fn keep_tap(&mut self, id: NicId, tap: &DesiredTap, place: &Place, is: &Link) -> Option<Outcome> {
        let Place { bridge, link } = place;
        let mut changes = PortChanges {
            name: (is.name != tap.name).then(|| tap.name.clone()),
            mtu: (is.mtu != bridge.mtu).then_some(bridge.mtu),
            up: !is.up,
            alias: !self.survey.is_labelled(is),
            bridge: (is.master != Some(link.index)).then_some(link.index),
            ..PortChanges::default()
        };
        if changes.bridge.is_some() {
            // It takes nothing along from one bridge to another.
            changes = PortChanges { name: changes.name, alias: changes.alias, ..all_of_tap(tap, place) };
        } else if let Some(port) = self.observed.as_ports.get(&is.index) {
            as_port(&mut changes, port, tap, bridge);
        }
        if changes == PortChanges::default() {
            return Some(Outcome::Ready);
        }
        if let Some(error) = self.failures.nics.get(&id) {
            return Some(Outcome::Failed(error.clone()));
        }
        let mut blocked = None;
        if changes.name.is_some()
            && let Some(holder) = self.survey.named(&tap.name)
        {
            changes.name = None;
            blocked = Some(match self.wait_for(holder, &tap.name) {
                Outcome::Failed(why) => Outcome::Failed(text::renamed("NIC's tap", &is.name, &why)),
                outcome @ (Outcome::Pending(_) | Outcome::Ready | Outcome::Removed) => outcome,
            });
        }
        if changes != PortChanges::default() {
            self.out.first.push(Step::RepairTap { nic: id, index: is.index, changes });
        }
        blocked
    }

    fn create_tap(&mut self, id: NicId, tap: &DesiredTap, place: &Place) -> Option<Outcome> {
        for name in [&tap.name, &temporary_name(id.uuid())] {
            if let Some(holder) = self.survey.named(name) {
                return Some(self.wait_for(holder, name));
            }
        }
        if let Some(error) = self.failures.nics.get(&id) {
            return Some(Outcome::Failed(error.clone()));
        }
        let changes = all_of_tap(tap, place);
        self.out.first.push(Step::CreateTap { nic: id, tap: tap.clone(), changes });
        None
    }
}

/// All that a new tap must get.
fn all_of_tap(tap: &DesiredTap, place: &Place) -> PortChanges {
    let Place { bridge, link } = place;
    PortChanges {
        name: Some(tap.name.clone()),
        mtu: Some(bridge.mtu),
        up: true,
        alias: true,
        bridge: Some(link.index),
        lock: true,
        unblock: false,
        vlan: bridge.vlan.map(|vlan| Some(vlan).into()),
        station: Some(Station::of_nic(tap.mac, bridge.vlan)),
        forget: Vec::new(),
    }
}

/// What is to be changed about a tap as a port of its bridge.
fn as_port(changes: &mut PortChanges, port: &Port, tap: &DesiredTap, bridge: &DesiredBridge) {
    let Port { locked, learning, altered, blocked, vlans, stations, remotes: _ } = port;
    changes.lock = !locked || *learning || *altered;
    changes.unblock = *blocked;
    if let Some(vlan) = bridge.vlan {
        let is_right = vlans.iter().eq([&PortVlan::access(vlan)]);
        changes.vlan = (!is_right).then(|| Some(vlan).into());
    }
    let wanted = Station::of_nic(tap.mac, bridge.vlan);
    // On a bridge that tells VLANs apart, a station of no VLAN gets an entry for each VLAN of its port.
    let is_wanted = |is: &Station| {
        (is.mac, is.is_static) == (wanted.mac, true) && (is.vlan == wanted.vlan || wanted.vlan.is_none())
    };
    changes.station = (!stations.iter().any(is_wanted)).then_some(wanted);
    changes.forget = stations.iter().filter(|is| !is_wanted(is)).copied().collect();
}
