//! What prevents the mesh from working, as found by the task that reconciles the device and by the probes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::model::mesh_device::MeshFaults;

/// The faults by who found them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// A fault of the device.
    pub(super) device: Option<String>,
    /// Nodes that no route could be added to, with the error.
    pub(super) unrouted: BTreeMap<Ipv4Addr, String>,
    /// Nodes that no full-size packet passes to and back, with the likely cause.
    pub(super) unproven: BTreeMap<Ipv4Addr, String>,
}

impl Faults {
    pub(super) fn merged(&self) -> MeshFaults {
        let Self { device, unrouted, unproven } = self;
        let mut nodes = unproven.clone();
        nodes.extend(unrouted.clone());
        MeshFaults { device: device.clone(), nodes }
    }
}
