//! The actions on bridges, as data.

use std::fmt;

use otherix_schemas::id::NetworkId;
use otherix_schemas::value::MacAddress;
use serde::Serialize;

use crate::model::bridge_port::VlanMembership;
use crate::model::desired::DesiredBridge;
use crate::model::link::BridgeSettings;
use crate::model::link_group::LinkGroup;

/// Creates a network's bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CreateBridge {
    #[serde(skip)]
    pub network: NetworkId,
    #[serde(flatten)]
    pub bridge: DesiredBridge,
}

/// Corrects a managed bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepairBridge {
    #[serde(skip)]
    pub network: NetworkId,
    pub index: u32,
    pub changes: BridgeChanges,
}

/// Changes of a bridge. What an empty field is about stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BridgeChanges {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub up: bool,
    /// Set the alias.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub alias: bool,
    /// Detach from the link that it is a port of.
    #[serde(rename = "release", skip_serializing_if = "std::ops::Not::not")]
    pub detach: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<LinkGroup>,
    /// Disable the host's own IPv6.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disable_ipv6: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<BridgeSetting>,
    /// The VLANs that the node itself must be a member of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanMembership>,
}

/// A field of [`BridgeSettings`] with the value to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeSetting {
    Stp(bool),
    VlanDefaultPvid(u16),
    VlanFiltering(bool),
    McastSnooping(bool),
    McastQuerier(bool),
}

impl BridgeSetting {
    /// Returns the changes from `current` to [`BridgeSettings::PLAIN`] or, on a bridge with a VLAN,
    /// [`BridgeSettings::TAGGED`]. The default VLAN of new ports matters only with VLAN filtering.
    pub(super) fn changes(current: BridgeSettings, is_tagged: bool) -> Vec<Self> {
        let wanted = if is_tagged { BridgeSettings::TAGGED } else { BridgeSettings::PLAIN };
        let BridgeSettings { stp, vlan_filtering, vlan_default_pvid, mcast_snooping, mcast_querier } = wanted;
        let has_other_pvid = is_tagged && current.vlan_default_pvid != vlan_default_pvid;
        let changes = [
            (current.stp != stp, Self::Stp(stp)),
            (has_other_pvid, Self::VlanDefaultPvid(vlan_default_pvid)),
            (current.vlan_filtering != vlan_filtering, Self::VlanFiltering(vlan_filtering)),
            (current.mcast_snooping != mcast_snooping, Self::McastSnooping(mcast_snooping)),
            (current.mcast_querier != mcast_querier, Self::McastQuerier(mcast_querier)),
        ];
        changes.into_iter().filter_map(|(differs, setting)| differs.then_some(setting)).collect()
    }
}

impl fmt::Display for CreateBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, bridge: DesiredBridge { name, mtu, .. } } = self;
        write!(f, "create bridge {name} with mtu {mtu} for network {network}")
    }
}

impl fmt::Display for RepairBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, index, changes } = self;
        write!(f, "repair bridge {index} of network {network}:{changes}")
    }
}

impl fmt::Display for BridgeChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, mtu, mac, up, alias, detach, group, disable_ipv6, settings, vlan } = self;
        name.iter().try_for_each(|name| write!(f, " name {name}"))?;
        mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))?;
        mac.iter().try_for_each(|mac| write!(f, " address {mac}"))?;
        group.iter().try_for_each(|group| write!(f, " group {}", group.number()))?;
        let flags = [(*alias, " alias"), (*detach, " nomaster"), (*disable_ipv6, " disable_ipv6"), (*up, " up")];
        flags.iter().filter(|(is_set, _)| *is_set).try_for_each(|(_, text)| f.write_str(text))?;
        vlan.iter().try_for_each(|vlan| vlan.fmt(f))?;
        settings.iter().try_for_each(|setting| match setting {
            BridgeSetting::Stp(on) => write!(f, " stp {on}"),
            BridgeSetting::VlanDefaultPvid(vlan) => write!(f, " vlan_default_pvid {vlan}"),
            BridgeSetting::VlanFiltering(on) => write!(f, " vlan_filtering {on}"),
            BridgeSetting::McastSnooping(on) => write!(f, " mcast_snooping {on}"),
            BridgeSetting::McastQuerier(on) => write!(f, " mcast_querier {on}"),
        })
    }
}
