//! The node's links as the kernel told of them, and whose they are. [`Observed::apply`] keeps them up to date from what it
//! tells next.
//!
//! Whose a link is, is what its alias said when one of ours was first seen on it: what is done to the alias afterwards does not
//! make the link another's. That memory is of this process and of the interface index: an agent that begins anew, or that
//! has lost track of what the kernel told, goes by the aliases that it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use otherix_schemas::value::MacAddress;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::firewall::Firewall;
use super::ip::Ip;
use super::mesh::{MESH, MESH_ALIAS, Trouble};
use super::owner::{Owner, is_temporary};
use super::port::Port;
use super::vxlan::{VXLAN, Vxlan, vtep_name};

/// The kind of a bridge, as the kernel calls it.
pub const BRIDGE: &str = "bridge";

/// The kind of a tap, as the kernel calls it.
pub const TAP: &str = "tun";

/// One link: what matters of it to us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The interface index, unique as long as the link exists.
    pub index: u32,
    /// The name.
    pub name: String,
    /// Its alternative names: no other link can have one of them as its name.
    #[serde(default)]
    pub altnames: Vec<String>,
    /// The kind, such as `bridge`; empty for hardware.
    #[serde(default)]
    pub kind: String,
    /// The MTU in bytes.
    pub mtu: u32,
    /// Its hardware address, if it has one of Ethernet.
    #[serde(default)]
    pub mac: Option<MacAddress>,
    /// Whether it is administratively up.
    pub up: bool,
    /// The alias.
    #[serde(default)]
    pub alias: Option<String>,
    /// The index of the bridge (or other link) that it is a port of.
    #[serde(default)]
    pub master: Option<u32>,
    /// Of a bridge.
    #[serde(default)]
    pub settings: Settings,
    /// Of a VTEP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan: Option<Vxlan>,
}

/// How a bridge forwards. What a kernel does not tell, because it lacks it, is as [`Settings::OURS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Spanning tree, in the kernel or by a daemon.
    pub stp: bool,
    /// VLANs are told apart.
    pub vlan_filtering: bool,
    /// The VLAN of a new port, 0 for none; the kernel's default is 1.
    pub vlan_default_pvid: u16,
    /// Multicast goes only where it is asked for.
    pub mcast_snooping: bool,
    /// The bridge asks itself who wants multicast.
    pub mcast_querier: bool,
}

impl Settings {
    /// How every bridge of ours is made, and kept: no spanning tree, whose states would hold up a new tap's traffic; VLANs pass
    /// unseen; multicast as the kernel has it by default.
    pub const OURS: Self =
        Self { stp: false, vlan_filtering: false, vlan_default_pvid: 1, mcast_snooping: true, mcast_querier: false };

    /// The same for a bridge whose network has a VLAN: no port is in any by itself.
    pub const TAGGED: Self = Self { vlan_filtering: true, vlan_default_pvid: 0, ..Self::OURS };
}

impl Default for Settings {
    fn default() -> Self {
        Self::OURS
    }
}

impl Link {
    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind == BRIDGE
    }

    /// Whether it is a tap.
    pub fn is_tap(&self) -> bool {
        self.kind == TAP
    }

    /// Whether it is a VTEP.
    pub fn is_vtep(&self) -> bool {
        self.kind == VXLAN
    }

    /// Whether it was left in the making: a kill between a device's making and its naming leaves it without an alias, under a
    /// name that only we give.
    fn is_left_over(&self) -> bool {
        self.may_be_ours() && is_temporary(&self.name)
    }

    /// Whether it is of a kind that we make.
    pub fn may_be_ours(&self) -> bool {
        self.is_bridge() || self.is_tap() || self.is_vtep()
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.name).chain(&self.altnames)
    }
}

/// Something the kernel told of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It is like this.
    Seen(Link),
    /// The link with this index is gone.
    Gone(u32),
}

impl LinkChange {
    /// Which link it is.
    pub fn index(&self) -> u32 {
        match self {
            Self::Seen(link) => link.index,
            Self::Gone(index) => *index,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    link: Link,
    owner: Option<Owner>,
    /// Its alias says so, too.
    labelled: bool,
}

impl Known {
    /// A link that was known to be of this owner, if of any.
    fn new(link: Link, before: Option<Owner>) -> Self {
        let says = link.alias.as_deref().and_then(|alias| alias.parse().ok());
        let owner = before.or(says);
        Self { link, owner, labelled: owner == says }
    }
}

/// All links of the node, and what else the kernel told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// How links are as ports of bridges, by their indexes; read when it matters.
    pub as_ports: BTreeMap<u32, Port>,
    /// IPv4.
    pub ip: Ip,
    /// The packet filter; read when it matters.
    pub firewall: Firewall,
    /// What keeps the mesh from being as it must be.
    pub mesh_trouble: Trouble,
    links: BTreeMap<u32, Known>,
    names: BTreeMap<String, BTreeSet<u32>>,
    owned: BTreeMap<Owner, BTreeSet<u32>>,
    ports: BTreeMap<u32, BTreeSet<u32>>,
    left_over: BTreeSet<u32>,
    /// Those that are, or once were, labelled as the mesh's device.
    mesh: BTreeSet<u32>,
}

impl Observed {
    /// The links, in the order of their indexes.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values().map(|known| &known.link)
    }

    /// The link with this index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index).map(|known| &known.link)
    }

    /// Whose it is, if its alias is or was one of ours.
    pub fn owner(&self, link: &Link) -> Option<Owner> {
        self.links.get(&link.index).and_then(|known| known.owner)
    }

    /// Whether its alias says whose it is.
    pub fn is_labelled(&self, link: &Link) -> bool {
        self.links.get(&link.index).is_some_and(|known| known.labelled)
    }

    /// The link that nobody else can have this name from: its name, or an alternative name of it.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.some(self.names.get(name)).next()
    }

    /// The links of one owner.
    pub fn owned(&self, owner: Owner) -> impl Iterator<Item = &Link> {
        self.some(self.owned.get(&owner))
    }

    /// The owners that have links.
    pub fn owners(&self) -> impl Iterator<Item = Owner> {
        self.owned.keys().copied()
    }

    /// The ports of a link.
    pub fn ports(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.some(self.ports.get(&master))
    }

    /// Bridges, VTEPs and taps that were left in the making.
    pub fn left_over(&self) -> impl Iterator<Item = &Link> {
        self.some(Some(&self.left_over))
    }

    /// The mesh's device, if it is ours: whatever has been done to its alias and its name since.
    pub fn mesh(&self) -> Option<&Link> {
        let named = self.some(Some(&self.mesh)).find(|link| link.name == MESH);
        named.or_else(|| self.some(Some(&self.mesh)).next())
    }

    fn some<'a>(&'a self, indexes: Option<&'a BTreeSet<u32>>) -> impl Iterator<Item = &'a Link> {
        indexes.into_iter().flatten().filter_map(|index| self.link(*index))
    }

    /// Takes a change in. Says whether it is one that a plan for networks with bridges of the names `wanted` may depend on.
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
        let mattered = before.as_ref().is_some_and(|known| self.matters(known, wanted));
        let Some(link) = seen else {
            self.ip.forget(index);
            self.as_ports.remove(&index);
            self.mesh.remove(&index);
            return mattered;
        };
        let known = Known::new(link, before.and_then(|known| known.owner));
        let matters = self.matters(&known, wanted);
        self.put(known);
        mattered || matters
    }

    /// Takes in what was read of all links. Whose they are is remembered, unless changes may have been `missed`: then an index
    /// may be another link's by now.
    pub fn replace(&mut self, links: Vec<Link>, missed: bool) {
        let mut before = std::mem::replace(self, Self::from(links));
        self.as_ports = std::mem::take(&mut before.as_ports);
        self.ip = std::mem::take(&mut before.ip);
        self.firewall = std::mem::take(&mut before.firewall);
        self.mesh_trouble = std::mem::take(&mut before.mesh_trouble);
        if missed {
            return;
        }
        self.mesh.extend(before.mesh.into_iter().filter(|index| self.links.contains_key(index)));
        for (index, Known { link: _, owner, labelled: _ }) in before.links {
            if owner.is_some()
                && let Some(known) = self.take(index)
            {
                self.put(Known::new(known.link, owner));
            }
        }
    }

    fn matters(&self, known: &Known, wanted: &BTreeSet<String>) -> bool {
        let Known { link, owner, labelled: _ } = known;
        let is_ours = |index: u32| self.links.get(&index).is_some_and(|known| known.owner.is_some());
        let is_of_ours = |index: u32| is_ours(index) || self.left_over.contains(&index);
        // The kernel makes no second device with the id of a VTEP.
        owner.is_some()
            || link.is_left_over()
            || link.vxlan.is_some_and(|vxlan| wanted.contains(&vtep_name(vxlan.vni)))
            || link.names().any(|name| wanted.contains(name) || is_temporary(name))
            || link.master.is_some_and(is_of_ours)
    }

    fn put(&mut self, known: Known) {
        let Known { link, owner, labelled: _ } = &known;
        let index = link.index;
        for name in link.names() {
            self.names.entry(name.clone()).or_default().insert(index);
        }
        if let Some(owner) = owner {
            self.owned.entry(*owner).or_default().insert(index);
        } else if link.is_left_over() {
            self.left_over.insert(index);
        }
        if let Some(master) = link.master {
            self.ports.entry(master).or_default().insert(index);
        }
        if link.alias.as_deref() == Some(MESH_ALIAS) {
            self.mesh.insert(index);
        }
        self.links.insert(index, known);
    }

    fn take(&mut self, index: u32) -> Option<Known> {
        let known = self.links.remove(&index)?;
        let Known { link, owner, labelled: _ } = &known;
        link.names().for_each(|name| remove(&mut self.names, name, index));
        owner.iter().for_each(|owner| remove(&mut self.owned, owner, index));
        link.master.iter().for_each(|master| remove(&mut self.ports, master, index));
        self.left_over.remove(&index);
        Some(known)
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
            observed.put(Known::new(link, None));
        }
        observed
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct All {
    links: Vec<Link>,
    #[serde(default)]
    ports: BTreeMap<u32, Port>,
    #[serde(default)]
    ip: Ip,
    #[serde(default)]
    firewall: Firewall,
    #[serde(default)]
    mesh_trouble: Trouble,
}

/// As a test's case says it: the links alone in a list, or with the rest.
impl<'de> Deserialize<'de> for Observed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Case)
    }
}

struct Case;

impl<'de> Visitor<'de> for Case {
    type Value = Observed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of links, or a map of what is observed")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, links: A) -> Result<Observed, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(links)).map(Observed::from)
    }

    fn visit_map<A: MapAccess<'de>>(self, all: A) -> Result<Observed, A::Error> {
        let All { links, ports, ip, firewall, mesh_trouble } = All::deserialize(MapAccessDeserializer::new(all))?;
        Ok(Observed { as_ports: ports, ip, firewall, mesh_trouble, ..Observed::from(links) })
    }
}

#[cfg(test)]
#[path = "observed_tests.rs"]
mod tests;
