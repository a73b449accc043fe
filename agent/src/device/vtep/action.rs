//! The actions on VTEPs, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use otherix_schemas::id::NetworkId;
use otherix_schemas::value::MacAddress;
use serde::Serialize;

use crate::device::port::action::PortChanges;
use crate::model::bridge_port::FdbEntry;
use crate::model::desired::DesiredVtep;
use crate::model::vxlan::RemoteEntry;

/// Creates a network's VTEP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CreateVtep {
    #[serde(skip)]
    pub network: NetworkId,
    pub vtep: DesiredVtep,
    pub changes: PortChanges,
}

/// Corrects a VTEP of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepairVtep {
    #[serde(skip)]
    pub network: NetworkId,
    pub index: u32,
    /// Its UDP port.
    #[serde(skip)]
    pub port: u16,
    pub changes: PortChanges,
}

/// Changes the forwarding of a VTEP and of its bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangeForwarding {
    #[serde(skip)]
    pub network: NetworkId,
    pub index: u32,
    pub changes: ForwardingChanges,
}

/// Changes of the forwarding, in the order of their execution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ForwardingChanges {
    /// Entries to remove from the VTEP's forwarding database.
    #[serde(rename = "prune", skip_serializing_if = "Vec::is_empty")]
    pub remove_remotes: Vec<RemoteEntry>,
    /// Entries to remove from the bridge's forwarding database.
    #[serde(rename = "forget", skip_serializing_if = "Vec::is_empty")]
    pub remove_fdb_entries: Vec<FdbEntry>,
    /// The node to set in the VTEP's forwarding database for each of these MAC addresses.
    #[serde(rename = "point", skip_serializing_if = "BTreeMap::is_empty")]
    pub set_remotes: BTreeMap<MacAddress, Ipv4Addr>,
    /// Entries to add to the bridge's forwarding database.
    #[serde(rename = "add", skip_serializing_if = "Vec::is_empty")]
    pub add_fdb_entries: Vec<FdbEntry>,
    /// Nodes to add to the flood list.
    #[serde(rename = "flood", skip_serializing_if = "BTreeSet::is_empty")]
    pub add_flood_nodes: BTreeSet<Ipv4Addr>,
}

impl fmt::Display for CreateVtep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, vtep, changes: _ } = self;
        write!(f, "create VTEP {} at {} for network {network}", vtep.name, vtep.local)
    }
}

impl fmt::Display for RepairVtep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, index, port: _, changes } = self;
        write!(f, "repair VTEP {index} of network {network}:{changes}")
    }
}

impl fmt::Display for ChangeForwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, index, changes } = self;
        let ForwardingChanges { remove_remotes, remove_fdb_entries, set_remotes, add_fdb_entries, add_flood_nodes } =
            changes;
        write!(f, "change forwarding by VTEP {index} of network {network}: ")?;
        write!(f, "remove {} remote and {} bridge entries, ", remove_remotes.len(), remove_fdb_entries.len())?;
        write!(f, "set {} remote entries, add {} bridge entries, ", set_remotes.len(), add_fdb_entries.len())?;
        write!(f, "flood to {} more nodes", add_flood_nodes.len())
    }
}
