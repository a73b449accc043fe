//! What the cluster's own events, which begin epochs, change in the state. No command leads to them: see
//! `recovery::restore`.

use otherix_schemas::cloudevent::Header;
use otherix_schemas::cluster::ClusterEvent;

use super::State;

impl State {
    pub(super) fn evolve_cluster(&mut self, header: &Header, event: &ClusterEvent) {
        match event {
            ClusterEvent::Restored(restored) => {
                self.restorations = header.stream_version;
                self.networks.highest_vni = self.networks.highest_vni.max(restored.highest_vni);
                self.nodes.mesh.restore(restored);
            }
        }
    }
}
