//! Decisions about networks.

use otherix_schemas::event::Event;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{
    BridgeSpec, NetworkCreated, NetworkDeleted, NetworkEvent, NetworkSpec, NewNetwork, NewSpec, OverlaySpec, Ownership,
};

use super::{Decision, Rejection, State};
use crate::config::ClusterConfig;

pub(super) fn create(
    state: &State,
    config: &ClusterConfig,
    network_id: NetworkId,
    network: &NewNetwork,
) -> Result<Decision, Rejection> {
    let NewNetwork { name, spec } = network.clone();
    if let Some(other) = state.names.get(&name.key()) {
        return Err(Rejection::NameTaken { name, other: *other });
    }
    let spec = match spec {
        NewSpec::Bridge(bridge) => {
            check_bridge(state, &bridge)?;
            NetworkSpec::Bridge(bridge)
        }
        NewSpec::Overlay { subnet } => NetworkSpec::Overlay(OverlaySpec {
            vni: config.vnis.after(state.highest_vni).ok_or(Rejection::VnisUsedUp)?,
            subnet,
            mtu: config.underlay_mtu.of_overlay().map_err(Rejection::UnderlayMtu)?,
        }),
    };
    check_subnet(state, &spec)?;
    Ok(Event::Network(NetworkEvent::Created(NetworkCreated { network_id, name, spec })).into())
}

/// Two networks share a bridge only if neither owns it.
fn check_bridge(state: &State, bridge: &BridgeSpec) -> Result<(), Rejection> {
    let users = state.bridges.get(bridge.bridge_name.as_str()).into_iter().flatten();
    for (_, other) in users.filter_map(|id| state.networks.get_key_value(id)) {
        if bridge.ownership != Ownership::Unmanaged || other.spec.managed() {
            return Err(Rejection::BridgeTaken { bridge: bridge.bridge_name.clone(), other: other.name.clone() });
        }
    }
    Ok(())
}

/// The subnets of networks with NAT egress do not overlap: replies could not be told apart.
fn check_subnet(state: &State, spec: &NetworkSpec) -> Result<(), Rejection> {
    let Some(nat) = spec.nat() else { return Ok(()) };
    for (_, other) in state.live_networks() {
        if let Some(taken) = other.spec.nat()
            && taken.subnet().overlaps(nat.subnet())
        {
            return Err(Rejection::SubnetOverlaps {
                subnet: nat.subnet(),
                other: other.name.clone(),
                taken: taken.subnet(),
            });
        }
    }
    Ok(())
}

pub(super) fn delete(state: &State, network_id: NetworkId) -> Result<Decision, Rejection> {
    let network = state.live_network(network_id).ok_or(Rejection::NoSuchNetwork(network_id))?;
    let vm_nics = state.nics.count_of_network(network_id);
    if vm_nics > 0 {
        return Err(Rejection::NetworkInUse { name: network.name.clone(), vm_nics });
    }
    Ok(Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id, name: network.name.clone() })).into())
}
