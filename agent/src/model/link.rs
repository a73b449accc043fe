//! A network interface, with the attributes that matter to the agent.

use std::net::Ipv4Addr;

use otherix_schemas::value::MacAddress;
use serde::{Deserialize, Serialize};

use super::link_group::LinkGroup;
use super::vxlan::Vxlan;

/// Values of `IFLA_INFO_KIND`.
pub const BRIDGE: &str = "bridge";
pub const TUN: &str = "tun";
pub const VXLAN: &str = "vxlan";

/// A network interface, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The interface index, unique while the link exists.
    pub index: u32,
    pub name: String,
    /// Alternative names, which no other link can have as its name.
    #[serde(default)]
    pub altnames: Vec<String>,
    /// `IFLA_INFO_KIND`, such as `bridge`; empty for hardware.
    #[serde(default)]
    pub kind: String,
    /// In bytes.
    pub mtu: u32,
    /// Absent unless it is a unicast Ethernet address.
    #[serde(default)]
    pub mac: Option<MacAddress>,
    /// Administrative state.
    pub up: bool,
    #[serde(default)]
    pub alias: Option<String>,
    /// The interface index of the bridge, or other link, that it is a port of.
    #[serde(default)]
    pub master: Option<u32>,
    /// `IFLA_GROUP`, which all links have; `None`: not known, and right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// The host's own IPv6 is enabled on it.
    #[serde(default)]
    pub ipv6: bool,
    /// Of a bridge.
    #[serde(default)]
    pub settings: BridgeSettings,
    /// Of a VTEP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan: Option<Vxlan>,
    /// The other end of a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Ipv4Addr>,
}

impl Link {
    pub fn is_bridge(&self) -> bool {
        self.kind == BRIDGE
    }

    pub fn is_vtep(&self) -> bool {
        self.kind == VXLAN
    }

    /// Returns the group that the link must be in, unless it is in it.
    pub fn other_group(&self, wanted: LinkGroup) -> Option<LinkGroup> {
        self.group.filter(|group| *group != wanted.number()).map(|_| wanted)
    }

    /// The name and the alternative names.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.name).chain(&self.altnames)
    }
}

/// How a bridge forwards. A setting that the kernel does not support has the value of [`BridgeSettings::PLAIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeSettings {
    /// Spanning tree, in the kernel or by a daemon.
    pub stp: bool,
    pub vlan_filtering: bool,
    /// The VLAN of a new port, 0 for none; the kernel's default is 1.
    pub vlan_default_pvid: u16,
    pub mcast_snooping: bool,
    pub mcast_querier: bool,
}

impl BridgeSettings {
    /// The settings of a managed bridge without a VLAN: no spanning tree, whose listening and learning states would
    /// delay the traffic of a new tap; no VLAN filtering; the kernel's defaults for multicast.
    pub const PLAIN: Self =
        Self { stp: false, vlan_filtering: false, vlan_default_pvid: 1, mcast_snooping: true, mcast_querier: false };

    /// The settings of a managed bridge whose network has a VLAN: a new port is in no VLAN.
    pub const TAGGED: Self = Self { vlan_filtering: true, vlan_default_pvid: 0, ..Self::PLAIN };
}

impl Default for BridgeSettings {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// A change of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It was added or changed. Contains its current state.
    Seen(Link),
    /// The link with this index no longer exists.
    Gone(u32),
}

impl LinkChange {
    pub fn index(&self) -> u32 {
        match self {
            Self::Seen(link) => link.index,
            Self::Gone(index) => *index,
        }
    }
}
