//! The node's packet filter: our tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use super::ip::Gateway;
use super::tap_lock::TapLocks;

/// The name of our tables with rules for single networks, of families `ip` and `arp`.
pub const TABLE: &str = "otherix";

/// The name of the tables of the guest filter, of families `ip`, `arp`, `ip6` and `bridge`.
pub const GUEST_TABLES: &str = "otherix_guests";

/// VNIs are assigned one after the other: with blocks, few overlays cost a write of the table. A power of two.
pub const VNI_BLOCK: u32 = 16;

/// What our table has rules for. It always drops what is forwarded from or to the mesh device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ruleset {
    /// Networks with NAT egress, by the name of their bridge. Guests reach addresses outside the node, but no other
    /// network of ours.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nat_networks: BTreeMap<String, Gateway>,
    /// Those of their bridges whose gateway resolves names: guests reach its TCP port 53.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub resolvers: BTreeSet<String>,
    /// The source address of the VTEPs, if there are any. Their VXLAN is received and sent only through the mesh
    /// device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vteps: Option<Ipv4Addr>,
    /// The UDP port of the VTEPs; absent if it is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan_port: Option<u16>,
    /// The first VNI of each block of [`VNI_BLOCK`] with VNIs of the VTEPs. VXLAN of other programs passes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub vnis: BTreeSet<u32>,
    /// The links that forward only because this agent turned it on, and whether each is a bridge: what they receive
    /// is forwarded to guests only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub uplinks: BTreeMap<String, bool>,
    /// Empty if there are no networks with NAT egress.
    #[serde(skip_serializing_if = "ClusterAddresses::is_empty")]
    pub cluster: ClusterAddresses,
}

/// Addresses of the cluster, which take a guest behind NAT for its node, and which guests therefore do not reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterAddresses {
    /// The nodes of the mesh, at their endpoints: guests reach no port of theirs.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub nodes: BTreeSet<Ipv4Addr>,
    /// The NATS servers: guests do not reach this TCP port.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub nats: BTreeSet<SocketAddrV4>,
}

impl ClusterAddresses {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.nats.is_empty()
    }
}

impl Ruleset {
    /// Whether no table is required.
    pub fn is_empty(&self) -> bool {
        self.nat_networks.is_empty() && self.vteps.is_none() && self.uplinks.is_empty()
    }
}

/// The state of our table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    #[default]
    Absent,
    /// It differs from what this process wrote.
    Altered,
    /// It could not be read, because other programs change the packet filter too often.
    Unread,
    /// It is what this process wrote.
    Holds(Ruleset),
}

/// The state of the guest filter: our tables that are the same for all networks (see `kernel::nft`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestFilter {
    Absent,
    /// It differs from what this process wrote.
    Altered,
    /// It could not be read, because other programs change the packet filter too often.
    Unread,
    /// It is what this process wrote.
    Intact,
}

/// The packet filter, as far as it concerns us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Firewall {
    pub table: TableState,
    /// `None` until it is read for the first time; plans then neither write nor remove it.
    pub guest_filter: Option<GuestFilter>,
    /// What the guest filter has about single taps; absent if it has not been read, or if this kernel cannot filter
    /// the frames of bridges.
    pub locks: Option<TapLocks>,
    /// Bridged IPv4 frames traverse the IPv4 filter (`net.bridge.bridge-nf-call-iptables`).
    pub bridged: bool,
}

impl Firewall {
    /// Returns the state of a packet filter that could not be read.
    pub fn unread() -> Self {
        Self { table: TableState::Unread, guest_filter: Some(GuestFilter::Unread), ..Self::default() }
    }
}

impl TableState {
    /// Returns the ruleset of the table, if it is known.
    pub fn ruleset(&self) -> Option<&Ruleset> {
        match self {
            Self::Holds(ruleset) => Some(ruleset),
            Self::Absent | Self::Altered | Self::Unread => None,
        }
    }

    /// Whether the table is exactly what this ruleset requires.
    pub fn has_exactly(&self, wanted: &Ruleset) -> bool {
        match self {
            Self::Absent => wanted.is_empty(),
            Self::Altered | Self::Unread => false,
            Self::Holds(ruleset) => ruleset == wanted,
        }
    }
}
