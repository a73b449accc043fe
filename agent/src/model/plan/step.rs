//! The steps of a plan, and which of them are not to be tried for now.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::value::{MacAddress, VlanId};
use serde::{Deserialize, Serialize};

use crate::model::desired::{DesiredBridge, DesiredTap, DesiredVtep};
use crate::model::firewall::Ruleset;
use crate::model::ip::Address;
use crate::model::observed::Settings;
use crate::model::port::Station;
use crate::model::vxlan::Remote;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Replace our table of the packet filter.
    Rules(Ruleset),
    /// Have a link by which a default route leads forward what comes in by it.
    Uplink {
        /// The link.
        index: u32,
        /// Its name.
        name: String,
    },
    /// Make a network's bridge.
    Create {
        /// The network.
        network: NetworkId,
        /// The bridge.
        bridge: DesiredBridge,
    },
    /// Change a bridge of ours back to what it must be.
    Repair {
        /// The network.
        network: NetworkId,
        /// The bridge.
        index: u32,
        /// What to change.
        changes: Changes,
    },
    /// Make a NIC's tap.
    CreateTap {
        /// The NIC.
        nic: NicId,
        /// The tap.
        tap: DesiredTap,
        /// How it is to be as a port.
        changes: PortChanges,
    },
    /// Change a tap of ours back to what it must be.
    RepairTap {
        /// The NIC.
        nic: NicId,
        /// The tap.
        index: u32,
        /// What to change.
        changes: PortChanges,
    },
    /// Make a network's VTEP.
    CreateVtep {
        /// The network.
        network: NetworkId,
        /// The VTEP.
        vtep: DesiredVtep,
        /// How it is to be as a port.
        changes: PortChanges,
    },
    /// Change a VTEP of ours back to what it must be.
    RepairVtep {
        /// The network.
        network: NetworkId,
        /// The VTEP.
        index: u32,
        /// What to change.
        changes: PortChanges,
    },
    /// Have a VTEP of ours lead to the right nodes.
    Forward {
        /// The network.
        network: NetworkId,
        /// The VTEP.
        index: u32,
        /// What to change.
        changes: Forwarding,
    },
    /// Remove a bridge, VTEP or tap of ours.
    Remove {
        /// The device.
        index: u32,
        /// Its name.
        name: String,
    },
}

impl Step {
    /// Whether it removes a device.
    pub fn is_removal(&self) -> bool {
        match self {
            Self::Remove { .. } => true,
            Self::Rules(_)
            | Self::Uplink { .. }
            | Self::Create { .. }
            | Self::Repair { .. }
            | Self::CreateTap { .. }
            | Self::RepairTap { .. }
            | Self::CreateVtep { .. }
            | Self::RepairVtep { .. }
            | Self::Forward { .. } => false,
        }
    }
}

/// What of a bridge differs from what must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// The name it must get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The MTU it must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The hardware address it must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// It is down.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub up: bool,
    /// It lacks its alias.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub alias: bool,
    /// It is a port of something.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub release: bool,
    /// Settings that it must have again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
    /// The only VLAN that the node itself must be in, if in any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<OnlyVlan>,
    /// The IPv4 address that it lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Whether it must forward IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<bool>,
}

/// What of a tap or VTEP, as a link and as a port, differs from what must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortChanges {
    /// The name it must get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The MTU it must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// It is down.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub up: bool,
    /// It lacks its alias.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub alias: bool,
    /// The index of the bridge that it must be a port of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<u32>,
    /// It must let in none but stations that are known at it, learn none, and otherwise be as the kernel makes ports.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lock: bool,
    /// It must forward.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unblock: bool,
    /// The only VLAN that it must be in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<OnlyVlan>,
    /// The station that the bridge must know at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub station: Option<Station>,
    /// Stations that the bridge must forget.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forget: Vec<Station>,
}

/// What of the forwarding to other nodes differs from what must be; changed in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Forwarding {
    /// What the VTEP must not send.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prune: Vec<Remote>,
    /// Stations that the bridge must not know at the VTEP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forget: Vec<Station>,
    /// The node of each of these stations, instead of the one that it has, if it has one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub point: BTreeMap<MacAddress, Ipv4Addr>,
    /// Stations that the bridge must know at the VTEP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub know: Vec<Station>,
    /// Nodes that broadcasts must go to as well.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub flood: BTreeSet<Ipv4Addr>,
}

/// The VLANs of a port: none, or this one, whose frames pass it without a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnlyVlan {
    /// None.
    None,
    /// This one.
    Access(VlanId),
}

impl From<Option<VlanId>> for OnlyVlan {
    fn from(vlan: Option<VlanId>) -> Self {
        vlan.map_or(Self::None, Self::Access)
    }
}

/// A setting that somebody changed, and how it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// See [`Settings::stp`].
    Stp(bool),
    /// See [`Settings::vlan_default_pvid`].
    VlanDefaultPvid(u16),
    /// See [`Settings::vlan_filtering`].
    VlanFiltering(bool),
    /// See [`Settings::mcast_snooping`].
    McastSnooping(bool),
    /// See [`Settings::mcast_querier`].
    McastQuerier(bool),
}

impl Setting {
    /// What is to be changed about `is` so that it becomes [`Settings::OURS`], or [`Settings::TAGGED`]. In which VLAN a new port
    /// would be matters only if they are told apart.
    pub(super) fn changes(is: Settings, tagged: bool) -> Vec<Self> {
        let wanted = if tagged { Settings::TAGGED } else { Settings::OURS };
        let Settings { stp, vlan_filtering, vlan_default_pvid, mcast_snooping, mcast_querier } = wanted;
        let changes = [
            (is.stp != stp, Self::Stp(stp)),
            (tagged && is.vlan_default_pvid != vlan_default_pvid, Self::VlanDefaultPvid(vlan_default_pvid)),
            (is.vlan_filtering != vlan_filtering, Self::VlanFiltering(vlan_filtering)),
            (is.mcast_snooping != mcast_snooping, Self::McastSnooping(mcast_snooping)),
            (is.mcast_querier != mcast_querier, Self::McastQuerier(mcast_querier)),
        ];
        changes.into_iter().filter_map(|(differs, setting)| differs.then_some(setting)).collect()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules(Ruleset { ways_out, vteps }) => {
                write!(f, "write the packet filter's table for {} ways out", ways_out.len())?;
                vteps.iter().try_for_each(|address| write!(f, " and VTEPs at {address}"))
            }
            Self::Uplink { index, name } => write!(f, "have the uplink {name} ({index}) forward IPv4"),
            Self::Create { network, bridge } => {
                let DesiredBridge { name, mtu, mac: _, vlan: _, nat: _ } = bridge;
                write!(f, "create bridge {name} with mtu {mtu} for network {network}")
            }
            Self::Repair { network, index, changes } => {
                write!(f, "repair bridge {index} of network {network}:{changes}")
            }
            Self::CreateTap { nic, tap, changes: _ } => write!(f, "create tap {} for NIC {nic}", tap.name),
            Self::RepairTap { nic, index, changes } => write!(f, "repair tap {index} of NIC {nic}:{changes}"),
            Self::CreateVtep { network, vtep, changes: _ } => {
                write!(f, "create VTEP {} at {} for network {network}", vtep.name, vtep.local)
            }
            Self::RepairVtep { network, index, changes } => {
                write!(f, "repair VTEP {index} of network {network}:{changes}")
            }
            Self::Forward { network, index, changes } => {
                write!(f, "have VTEP {index} of network {network} forward:{changes}")
            }
            Self::Remove { index, name } => write!(f, "remove {name} ({index})"),
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, mtu, mac, up, alias, release, settings, vlan, address, forwarding } = self;
        name.iter().try_for_each(|name| write!(f, " name {name}"))?;
        mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))?;
        mac.iter().try_for_each(|mac| write!(f, " address {mac}"))?;
        flags(f, &[(*alias, " alias"), (*release, " nomaster"), (*up, " up")])?;
        vlan.iter().try_for_each(|vlan| vlan.fmt(f))?;
        address.iter().try_for_each(|address| write!(f, " inet {address}"))?;
        forwarding.iter().try_for_each(|on| write!(f, " forwarding {on}"))?;
        settings.iter().try_for_each(|setting| match setting {
            Setting::Stp(on) => write!(f, " stp {on}"),
            Setting::VlanDefaultPvid(vlan) => write!(f, " vlan_default_pvid {vlan}"),
            Setting::VlanFiltering(on) => write!(f, " vlan_filtering {on}"),
            Setting::McastSnooping(on) => write!(f, " mcast_snooping {on}"),
            Setting::McastQuerier(on) => write!(f, " mcast_querier {on}"),
        })
    }
}

impl fmt::Display for PortChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, mtu, up, alias, bridge, lock, unblock, vlan, station, forget } = self;
        name.iter().try_for_each(|name| write!(f, " name {name}"))?;
        mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))?;
        bridge.iter().try_for_each(|bridge| write!(f, " master {bridge}"))?;
        flags(f, &[(*alias, " alias"), (*lock, " locked"), (*unblock, " forwarding"), (*up, " up")])?;
        vlan.iter().try_for_each(|vlan| vlan.fmt(f))?;
        station.iter().try_for_each(|station| write!(f, " station {}", station.mac))?;
        forget.iter().try_for_each(|station| write!(f, " not {}", station.mac))
    }
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prune, forget, point, know, flood } = self;
        write!(f, " {} entries pruned, {} stations forgotten, ", prune.len(), forget.len())?;
        write!(f, "{} pointed, {} known, {} nodes flooded", point.len(), know.len(), flood.len())
    }
}

impl fmt::Display for OnlyVlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str(" no vlan"),
            Self::Access(vlan) => write!(f, " vlan {vlan}"),
        }
    }
}

fn flags(f: &mut fmt::Formatter<'_>, flags: &[(bool, &str)]) -> fmt::Result {
    flags.iter().filter(|(set, _)| *set).try_for_each(|(_, text)| f.write_str(text))
}

/// Steps that are not to be tried for now: the kernel refused them, or somebody undoes them again and again. The texts are
/// for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failures {
    /// Creations and repairs of bridges and VTEPs.
    pub networks: BTreeMap<NetworkId, String>,
    /// Creations and repairs of taps.
    pub nics: BTreeMap<NicId, String>,
    /// Removals, and changes to uplinks, by the index of the device.
    pub devices: BTreeMap<u32, String>,
    /// Writing our table of the packet filter.
    pub rules: Option<String>,
}
