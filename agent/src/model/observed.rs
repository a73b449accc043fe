//! The observed state of the node: links with their owners, bridge ports, IPv4 and the packet filter.
//!
//! The owner of a link is the one in the first alias of ours that was seen on it: changing the alias afterwards does
//! not change the owner. Owners are remembered by interface index, in this process: one that has just started, or that
//! missed notifications, uses the aliases that it finds.

mod deserialize;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::BitOr;
use std::sync::Arc;

use super::bridge_port::BridgePort;
use super::filter::ForeignFilter;
use super::firewall::Firewall;
use super::ip::Ipv4Config;
use super::link::{Link, LinkChange};
use super::mesh_device::{MESH, MESH_ALIAS, MeshFaults};
use super::need::{Need, Needs};
use super::owner::{Owner, is_temporary};
use super::route_lookup::RouteLookups;
use super::vxlan::vtep_name;
use super::withdrawal::Withdrawals;

/// Parts of the observed state that are read separately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// All links and IPv4.
    pub links: bool,
    /// Bridge ports and forwarding databases.
    pub ports: bool,
    pub routes: bool,
    /// Our tables of the packet filter.
    pub firewall: bool,
    /// The tables of other programs.
    pub foreign: bool,
}

impl Parts {
    pub const NONE: Self = Self { links: false, ports: false, routes: false, firewall: false, foreign: false };
    pub const ALL: Self = Self { links: true, ports: true, routes: true, firewall: true, foreign: true };
    pub const PORTS: Self = Self { ports: true, ..Self::NONE };
    pub const FIREWALL: Self = Self { firewall: true, ..Self::NONE };
}

impl BitOr for Parts {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        let Self { links, ports, routes, firewall, foreign } = self;
        Self {
            links: links || other.links,
            ports: ports || other.ports,
            routes: routes || other.routes,
            firewall: firewall || other.firewall,
            foreign: foreign || other.foreign,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnedLink {
    link: Link,
    owner: Option<Owner>,
    /// Whether the alias contains the owner.
    is_labelled: bool,
}

impl OwnedLink {
    /// `known_owner` is the remembered owner.
    fn new(link: Link, known_owner: Option<Owner>) -> Self {
        let named = link.alias.as_deref().and_then(|alias| alias.parse().ok());
        let owner = known_owner.or(named);
        Self { link, owner, is_labelled: owner == named }
    }
}

/// The observed state of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// By interface index. Read only if the desired state depends on it.
    pub ports: BTreeMap<u32, BridgePort>,
    pub ip: Ipv4Config,
    /// Read only if the desired state depends on it.
    pub firewall: Firewall,
    /// Read only if the desired state depends on it.
    pub foreign: Arc<ForeignFilter>,
    pub mesh_faults: MeshFaults,
    /// What the node must be able to reach.
    pub needs: Needs,
    /// Those of them whose loss must be undone at once; all of the control plane, if absent.
    pub vital: Option<BTreeSet<Ipv4Addr>>,
    /// How the node's own packets reach the addresses that plans depend on.
    pub route_lookups: RouteLookups,
    /// The networks that were withdrawn from this node, and are not to be created again.
    pub withdrawn: Withdrawals,
    /// The addresses of all nodes in the mesh.
    pub mesh_addresses: BTreeSet<Ipv4Addr>,
    links: BTreeMap<u32, OwnedLink>,
    by_name: BTreeMap<String, BTreeSet<u32>>,
    by_owner: BTreeMap<Owner, BTreeSet<u32>>,
    by_master: BTreeMap<u32, BTreeSet<u32>>,
    /// Links without an owner that have a temporary name.
    temporary: BTreeSet<u32>,
    /// Links that have, or had, the mesh device's alias.
    mesh: BTreeSet<u32>,
}

impl Observed {
    /// The links, by interface index.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values().map(|owned| &owned.link)
    }

    /// Returns the link with this interface index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index).map(|owned| &owned.link)
    }

    /// Returns the owner of the link, which its alias contains or contained.
    pub fn owner(&self, link: &Link) -> Option<Owner> {
        self.links.get(&link.index).and_then(|owned| owned.owner)
    }

    /// Whether the link's alias contains its owner.
    pub fn is_labelled(&self, link: &Link) -> bool {
        self.links.get(&link.index).is_some_and(|owned| owned.is_labelled)
    }

    /// Returns the link with this name or alternative name.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.at(self.by_name.get(name)).next()
    }

    /// Returns the links of an owner.
    pub fn owned(&self, owner: Owner) -> impl Iterator<Item = &Link> {
        self.at(self.by_owner.get(&owner))
    }

    /// The owners that have links.
    pub fn owners(&self) -> impl Iterator<Item = Owner> {
        self.by_owner.keys().copied()
    }

    /// Returns the ports of a bridge.
    pub fn ports_of(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.at(self.by_master.get(&master))
    }

    /// Links with a temporary name and no owner, such as those of a process that was killed before it set the alias.
    pub fn temporary(&self) -> impl Iterator<Item = &Link> {
        self.at(Some(&self.temporary))
    }

    /// Returns our mesh device, whatever its present alias and name.
    pub fn mesh(&self) -> Option<&Link> {
        let named = self.at(Some(&self.mesh)).find(|link| link.name == MESH);
        named.or_else(|| self.at(Some(&self.mesh)).next())
    }

    /// Returns the addresses whose loss must be undone at once.
    pub fn vital_needs(&self) -> impl Iterator<Item = (Ipv4Addr, Need)> {
        let counts = |(address, need): &(Ipv4Addr, Need)| match &self.vital {
            Some(vital) => vital.contains(address),
            None => *need == Need::ControlPlane,
        };
        self.needs.iter().map(|(address, need)| (*address, *need)).filter(counts)
    }

    fn at<'a>(&'a self, indexes: Option<&'a BTreeSet<u32>>) -> impl Iterator<Item = &'a Link> {
        indexes.into_iter().flatten().filter_map(|index| self.link(*index))
    }

    /// Applies a change. Returns whether a plan may depend on it. `wanted` are the names of the devices that the
    /// desired state requires or depends on.
    pub fn apply(&mut self, change: LinkChange, wanted: &BTreeSet<String>) -> bool {
        let index = change.index();
        let seen = match change {
            LinkChange::Seen(link) => Some(link),
            LinkChange::Gone(_) => None,
        };
        if self.link(index) == seen.as_ref() {
            return false;
        }
        let before = self.take(index);
        let mattered = before.as_ref().is_some_and(|owned| self.matters(owned, wanted));
        let Some(link) = seen else {
            self.ip.remove_link(index);
            self.ports.remove(&index);
            self.mesh.remove(&index);
            return mattered;
        };
        let owned = OwnedLink::new(link, before.and_then(|owned| owned.owner));
        let matters = self.matters(&owned, wanted);
        self.put(owned);
        mattered || matters
    }

    /// Replaces all links. Owners are remembered, unless notifications may have been missed: an index may have been
    /// reused for another link.
    pub fn replace(&mut self, links: Vec<Link>, may_have_missed: bool) {
        let mut before = std::mem::replace(self, Self::from(links));
        self.ports = std::mem::take(&mut before.ports);
        self.ip = std::mem::take(&mut before.ip);
        self.firewall = std::mem::take(&mut before.firewall);
        self.foreign = std::mem::take(&mut before.foreign);
        self.mesh_faults = std::mem::take(&mut before.mesh_faults);
        self.needs = std::mem::take(&mut before.needs);
        self.vital = before.vital.take();
        self.route_lookups = std::mem::take(&mut before.route_lookups);
        self.withdrawn = std::mem::take(&mut before.withdrawn);
        self.mesh_addresses = std::mem::take(&mut before.mesh_addresses);
        if may_have_missed {
            return;
        }
        self.mesh.extend(before.mesh.into_iter().filter(|index| self.links.contains_key(index)));
        for (index, OwnedLink { link: _, owner, is_labelled: _ }) in before.links {
            if owner.is_some()
                && let Some(owned) = self.take(index)
            {
                self.put(OwnedLink::new(owned.link, owner));
            }
        }
    }

    fn matters(&self, owned: &OwnedLink, wanted: &BTreeSet<String>) -> bool {
        let OwnedLink { link, owner, is_labelled: _ } = owned;
        let is_owned = |index: u32| self.links.get(&index).is_some_and(|owned| owned.owner.is_some());
        let may_be_ours = |index: u32| is_owned(index) || self.temporary.contains(&index);
        // The kernel creates no second device with a VTEP's VNI.
        owner.is_some()
            || link.remote.is_some()
            || link.vxlan.is_some_and(|vxlan| wanted.contains(&vtep_name(vxlan.vni)))
            || link.names().any(|name| wanted.contains(name) || is_temporary(name))
            || link.master.is_some_and(may_be_ours)
    }

    fn put(&mut self, owned: OwnedLink) {
        let OwnedLink { link, owner, is_labelled: _ } = &owned;
        let index = link.index;
        for name in link.names() {
            self.by_name.entry(name.clone()).or_default().insert(index);
        }
        if let Some(owner) = owner {
            self.by_owner.entry(*owner).or_default().insert(index);
        } else if is_temporary(&link.name) {
            self.temporary.insert(index);
        }
        if let Some(master) = link.master {
            self.by_master.entry(master).or_default().insert(index);
        }
        if link.alias.as_deref() == Some(MESH_ALIAS) {
            self.mesh.insert(index);
        }
        self.links.insert(index, owned);
    }

    fn take(&mut self, index: u32) -> Option<OwnedLink> {
        let owned = self.links.remove(&index)?;
        let OwnedLink { link, owner, is_labelled: _ } = &owned;
        link.names().for_each(|name| remove(&mut self.by_name, name, index));
        owner.iter().for_each(|owner| remove(&mut self.by_owner, owner, index));
        link.master.iter().for_each(|master| remove(&mut self.by_master, master, index));
        self.temporary.remove(&index);
        Some(owned)
    }
}

fn remove<Key: Ord>(sets: &mut BTreeMap<Key, BTreeSet<u32>>, key: &Key, index: u32) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(&index);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

impl From<Vec<Link>> for Observed {
    fn from(links: Vec<Link>) -> Self {
        let mut observed = Self::default();
        for link in links {
            observed.take(link.index);
            observed.put(OwnedLink::new(link, None));
        }
        observed
    }
}

#[cfg(test)]
mod tests;
