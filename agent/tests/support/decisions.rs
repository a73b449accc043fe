//! Decisions on networks with managed bridges.

use otherix_schemas::event::Event;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{
    BridgeSpec, Egress, NetworkCreated, NetworkDeleted, NetworkEvent, NetworkSpec, Ownership,
};
use uuid::Uuid;

/// Returns the id of a network.
pub(crate) fn network(number: u16) -> NetworkId {
    NetworkId::new(Uuid::from_u128(number.into()))
}

/// Returns the creation of a network with a managed bridge.
pub(crate) fn created(network_id: NetworkId, bridge: &str, vlan: Option<i64>) -> Event {
    let spec = NetworkSpec::Bridge(BridgeSpec {
        bridge_name: bridge.parse().unwrap(),
        ownership: Ownership::Managed(Egress::None),
        mtu: 1400.try_into().unwrap(),
        vlan: vlan.map(|number| number.try_into().unwrap()),
        dhcp: None,
        allow_spoofing: false,
    });
    Event::Network(NetworkEvent::Created(NetworkCreated { network_id, name: bridge.parse().unwrap(), spec }))
}

/// Returns the deletion of a network.
pub(crate) fn deleted(network_id: NetworkId) -> Event {
    Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id, name: "net".parse().unwrap() }))
}
