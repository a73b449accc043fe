//! Changes of a tap or VTEP, as data.

use std::fmt;

use serde::Serialize;

use crate::model::bridge_port::{FdbEntry, VlanMembership};
use crate::model::link_group::LinkGroup;

/// Changes of a link that is a bridge port. What an empty field is about stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PortChanges {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub up: bool,
    /// Set the alias.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub alias: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<LinkGroup>,
    /// Disable the host's own IPv6.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disable_ipv6: bool,
    /// The interface index of the bridge to attach it to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<u32>,
    /// Lock the port, turn learning off, keep it from becoming a root port, and set everything else to the kernel's
    /// defaults.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lock: bool,
    /// As [`Self::lock`], but unlock the port: it accepts frames with any source MAC address.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unlock: bool,
    /// Set the port's state to `forwarding`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unblock: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanMembership>,
    /// The entry to add to the bridge's forwarding database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fdb_entry: Option<FdbEntry>,
    /// The entries to remove from the bridge's forwarding database.
    #[serde(rename = "forget", skip_serializing_if = "Vec::is_empty")]
    pub remove_fdb_entries: Vec<FdbEntry>,
}

impl fmt::Display for PortChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, mtu, up, alias, group, disable_ipv6, bridge, lock, unlock, unblock, vlan, .. } = self;
        let Self { fdb_entry, remove_fdb_entries, .. } = self;
        name.iter().try_for_each(|name| write!(f, " name {name}"))?;
        mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))?;
        bridge.iter().try_for_each(|bridge| write!(f, " master {bridge}"))?;
        group.iter().try_for_each(|group| write!(f, " group {}", group.number()))?;
        let flags = [
            (*alias, " alias"),
            (*disable_ipv6, " disable_ipv6"),
            (*lock, " locked"),
            (*unlock, " unlocked"),
            (*unblock, " forwarding"),
            (*up, " up"),
        ];
        flags.iter().filter(|(is_set, _)| *is_set).try_for_each(|(_, text)| f.write_str(text))?;
        vlan.iter().try_for_each(|vlan| vlan.fmt(f))?;
        fdb_entry.iter().try_for_each(|entry| write!(f, " fdb {}", entry.mac))?;
        remove_fdb_entries.iter().try_for_each(|entry| write!(f, " no fdb {}", entry.mac))
    }
}
