//! Bridges. An unmanaged bridge has what it must have if there is a bridge of that name, which tells VLANs apart if its network
//! has one. Whether it is up, its MTU, its ports and its other settings are its operator's affair. It is in no step.

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;

use super::step::{Changes, OnlyVlan, Setting, Step};
use super::survey::Holder;
use super::{Planner, text};
use crate::model::desired::DesiredBridge;
use crate::model::observed::Link;
use crate::model::owner::{is_temporary, temporary_name};
use crate::model::port::PortVlan;

impl Planner<'_> {
    pub(super) fn bridge(&mut self, id: NetworkId, bridge: &DesiredBridge) -> Option<Outcome> {
        self.out.warnings.extend(self.nat.warnings(self.observed, bridge).map(|warnings| (id, warnings)));
        let (ours, extra) = self.survey.of_network(id, &bridge.name);
        for link in extra {
            let blocked = self.remove(link).err();
            self.out.notices.extend(blocked);
        }
        match ours {
            Some(link) => self.keep(id, bridge, link),
            None => self.create(id, bridge),
        }
    }

    /// What a bridge of ours that is there needs.
    fn keep(&mut self, id: NetworkId, bridge: &DesiredBridge, link: &Link) -> Option<Outcome> {
        let mut changes = Changes {
            name: (link.name != bridge.name).then(|| bridge.name.clone()),
            mtu: (link.mtu != bridge.mtu).then_some(bridge.mtu),
            mac: bridge.mac.filter(|_| link.mac != bridge.mac),
            up: !link.up,
            alias: !self.survey.is_labelled(link),
            release: link.master.is_some(),
            settings: Setting::changes(link.settings, bridge.vlan.is_some()),
            vlan: self.node_vlan(bridge, link),
            address: None,
            forwarding: None,
        };
        let way_out = self.nat.way_out(self.observed, bridge, link.index, &mut changes);
        if changes == Changes::default() {
            return way_out.or(Some(Outcome::Ready));
        }
        if let Some(error) = self.failures.networks.get(&id) {
            return Some(Outcome::Failed(error.clone()));
        }
        let blocked = changes.name.is_some().then(|| self.rename(id, bridge, link, &mut changes)).flatten();
        if changes != Changes::default() {
            self.out.first.push(Step::Repair { network: id, index: link.index, changes });
        }
        blocked
    }

    /// The VLANs that the node must be in on a bridge with a VLAN, if it is in others: only the gateway's.
    fn node_vlan(&self, bridge: &DesiredBridge, link: &Link) -> Option<OnlyVlan> {
        let vlan = bridge.vlan?;
        let wanted = bridge.nat.map(|_| vlan);
        let is = self.observed.as_ports.get(&link.index).map(|port| &port.vlans);
        let is_right = is.map_or(wanted.is_none(), |is| is.iter().copied().eq(wanted.map(PortVlan::access)));
        (!is_right).then(|| wanted.into())
    }

    /// What is in the way of giving a bridge its name back. If that is a bridge of ours that is to have another name itself,
    /// both get out of each other's way first.
    fn rename(&mut self, id: NetworkId, bridge: &DesiredBridge, link: &Link, changes: &mut Changes) -> Option<Outcome> {
        let holder = self.survey.named(&bridge.name)?;
        changes.name = None;
        if let Holder::Ours(_, other) = holder
            && let Some(theirs) = self.desired.networks.get(&other).and_then(|network| network.want.managed())
            && theirs.name != bridge.name
        {
            changes.name = (!is_temporary(&link.name)).then(|| temporary_name(id.uuid()));
            return Some(Outcome::Pending(text::exchanged(&bridge.name, &link.name)));
        }
        Some(match self.wait_for(holder, &bridge.name) {
            Outcome::Failed(why) => Outcome::Failed(text::renamed("network's bridge", &link.name, &why)),
            outcome @ (Outcome::Pending(_) | Outcome::Ready | Outcome::Removed) => outcome,
        })
    }

    /// What a bridge that is not there needs.
    fn create(&mut self, id: NetworkId, bridge: &DesiredBridge) -> Option<Outcome> {
        for name in [&bridge.name, &temporary_name(id.uuid())] {
            if let Some(holder) = self.survey.named(name) {
                return Some(self.wait_for(holder, name));
            }
        }
        if let Some(error) = self.failures.networks.get(&id) {
            return Some(Outcome::Failed(error.clone()));
        }
        if let Some(outcome) = self.nat.in_the_way(self.observed, bridge, None) {
            return Some(outcome);
        }
        if !self.out.claimed.insert(bridge.name.clone()) {
            return Some(Outcome::Failed(format!("another network has the bridge `{}`", bridge.name)));
        }
        self.out.first.push(Step::Create { network: id, bridge: bridge.clone() });
        None
    }

    /// How an unmanaged bridge fares.
    pub(super) fn unmanaged(&mut self, id: NetworkId, bridge: &DesiredBridge) -> Outcome {
        let DesiredBridge { name, mtu, mac: _, vlan, nat: _ } = bridge;
        match self.survey.named(name) {
            None => Outcome::Failed(text::missing(name)),
            Some(Holder::Foreign(link)) if link.is_bridge() => {
                if vlan.is_some() && !link.settings.vlan_filtering {
                    return Outcome::Failed(text::no_filtering(link));
                }
                let narrow = (link.mtu < *mtu).then(|| text::narrow(link, *mtu));
                self.out.warnings.extend(narrow.map(|warning| (id, vec![warning])));
                Outcome::Ready
            }
            Some(Holder::Foreign(link)) => Outcome::Failed(text::no_bridge(link)),
            Some(
                holder @ (Holder::Ours(..)
                | Holder::OurVtep(..)
                | Holder::OurTap(..)
                | Holder::LeftOver(_)
                | Holder::Alternative(_)),
            ) => self.wait_for(holder, name),
        }
    }

    /// What a deleted network needs.
    pub(super) fn nothing(&mut self, id: NetworkId) -> Option<Outcome> {
        let mut links = self.survey.vteps_of_network(id);
        links.extend(self.survey.all_of_network(id));
        let outcome = self.remove_all(links);
        // Its rules go when its bridge has gone.
        outcome.filter(|outcome| *outcome != Outcome::Removed || !self.nat.shrinks())
    }
}
