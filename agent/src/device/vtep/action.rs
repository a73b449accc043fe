//! What is done to VTEPs, as data.

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

/// Changes a VTEP of ours to what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepairVtep {
    #[serde(skip)]
    pub network: NetworkId,
    pub index: u32,
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

/// Executed in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ForwardingChanges {
    /// Entries to remove from the VTEP's forwarding database.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prune: Vec<RemoteEntry>,
    /// Entries to remove from the bridge's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forget: Vec<FdbEntry>,
    /// The node of each of these MAC addresses, which replaces the present one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub point: BTreeMap<MacAddress, Ipv4Addr>,
    /// Entries to add to the bridge's forwarding database.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<FdbEntry>,
    /// Nodes to add to the flood list.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub flood: BTreeSet<Ipv4Addr>,
}

impl fmt::Display for CreateVtep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, vtep, changes: _ } = self;
        write!(f, "create VTEP {} at {} for network {network}", vtep.name, vtep.local)
    }
}

impl fmt::Display for RepairVtep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, index, changes } = self;
        write!(f, "repair VTEP {index} of network {network}:{changes}")
    }
}

impl fmt::Display for ChangeForwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, index, changes } = self;
        let ForwardingChanges { prune, forget, point, add, flood } = changes;
        write!(f, "change forwarding by VTEP {index} of network {network}: ")?;
        write!(f, "remove {} remote and {} bridge entries, ", prune.len(), forget.len())?;
        write!(f, "point {} to nodes, add {} bridge entries, flood to {}", point.len(), add.len(), flood.len())
    }
}
