//! Networks: their state, the decisions about them, and the reply.

mod change;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::Event;
use otherix_schemas::id::{NetworkId, NodeId};
use otherix_schemas::network::{
    BridgeSpec, Lifetime, NetworkChanged, NetworkCommand, NetworkCreated, NetworkDeleted, NetworkEvent, NetworkSpec,
    NetworkStatus, NetworkView, NewNetwork, NewNetworkSpec, OverlaySpec, Ownership,
};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{Ipv4Subnet, Metadata, NetworkName, Vni};
use serde::{Deserialize, Serialize};

use super::codec::{SpecForm, micros};
use super::name_index::NameIndex;
use super::reported_status::ReportedStatus;
use super::{Decision, Rejection, Reply, State};
use crate::config::ClusterConfig;

/// A network, kept until every node has reported that it is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub name: NetworkName,
    #[serde(with = "SpecForm")]
    pub spec: NetworkSpec,
    /// What people say about it.
    pub metadata: Metadata,
    /// Stream version of its last event.
    pub version: u32,
    /// Position of its last decision.
    pub generation: Position,
    #[serde(with = "micros")]
    pub created_at: Timestamp,
    /// The time of its last decision.
    #[serde(with = "micros")]
    pub updated_at: Timestamp,
    /// Present once it is deleted.
    pub deletion: Option<Deletion>,
    /// The last status that each node reported.
    pub outcomes: BTreeMap<NodeId, ReportedStatus>,
}

/// The deletion of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Nodes that have not reported its removal.
    pub awaited: BTreeSet<NodeId>,
}

/// All networks, with indexes over those that are not deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SavedNetworks")]
pub struct Networks {
    by_id: BTreeMap<NetworkId, Network>,
    /// The highest VNI that may ever have been assigned, to deleted overlays too.
    pub(super) highest_vni: Option<Vni>,
    #[serde(skip_serializing)]
    by_name: NameIndex<NetworkId>,
    /// Several networks share a bridge only if it is unmanaged.
    #[serde(skip_serializing)]
    by_bridge: HashMap<String, BTreeSet<NetworkId>>,
    #[serde(skip_serializing)]
    nat_subnets: NatSubnets,
}

/// The subnets of networks with NAT egress, by their first address. They never overlap, so the one that an address may
/// lie in is the last that does not begin after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NatSubnets(BTreeMap<Ipv4Addr, (Ipv4Subnet, NetworkId)>);

impl NatSubnets {
    /// Returns the first subnet that overlaps this one, of another network than `own`.
    fn overlapping(&self, subnet: Ipv4Subnet, own: Option<NetworkId>) -> Option<(Ipv4Subnet, NetworkId)> {
        let is_other = |(_, id): &(Ipv4Subnet, NetworkId)| Some(*id) != own;
        let before = self.0.range(..subnet.network()).rev().map(|(_, found)| *found).find(is_other);
        let after = self.0.range(subnet.network()..=subnet.broadcast()).map(|(_, found)| *found).find(is_other);
        before.into_iter().chain(after).find(|(other, _)| other.overlaps(subnet))
    }
}

/// What a state snapshot holds of [`Networks`].
#[derive(Deserialize)]
struct SavedNetworks {
    by_id: BTreeMap<NetworkId, Network>,
    highest_vni: Option<Vni>,
}

impl From<SavedNetworks> for Networks {
    fn from(SavedNetworks { by_id, highest_vni }: SavedNetworks) -> Self {
        let mut networks = Self { highest_vni, ..Self::default() };
        by_id
            .iter()
            .filter(|(_, network)| network.deletion.is_none())
            .for_each(|(id, network)| networks.index(*id, network));
        networks.by_id = by_id;
        networks
    }
}

impl Networks {
    /// Returns a network, deleted or not.
    pub fn get(&self, id: NetworkId) -> Option<&Network> {
        self.by_id.get(&id)
    }

    /// Returns the networks that are not deleted.
    pub fn live(&self) -> impl Iterator<Item = (NetworkId, &Network)> {
        self.by_id.iter().filter(|(_, network)| network.deletion.is_none()).map(|(id, network)| (*id, network))
    }

    fn index(&mut self, id: NetworkId, network: &Network) {
        self.by_name.insert(network.name.key(), id);
        self.by_bridge.entry(network.spec.bridge_name()).or_default().insert(id);
        if let Some(nat) = network.spec.nat() {
            self.nat_subnets.0.insert(nat.subnet().network(), (nat.subnet(), id));
        }
    }

    fn unindex(&mut self, id: NetworkId) {
        let Some(Network { name, spec, .. }) = self.by_id.get(&id) else { return };
        self.by_name.remove(&name.key(), id);
        let bridge = spec.bridge_name();
        if let Some(sharing) = self.by_bridge.get_mut(&bridge) {
            sharing.remove(&id);
            if sharing.is_empty() {
                self.by_bridge.remove(&bridge);
            }
        }
        if let Some(nat) = spec.nat() {
            self.nat_subnets.0.remove(&nat.subnet().network());
        }
    }

    fn insert(&mut self, id: NetworkId, network: Network) {
        self.index(id, &network);
        self.highest_vni = self.highest_vni.max(network.spec.vni());
        self.by_id.insert(id, network);
    }

    /// Replaces the definition of a network that is not deleted.
    fn change(&mut self, header: &Header, event: &NetworkChanged) {
        let NetworkChanged { network_id: id, name, spec, metadata } = event.clone();
        if self.by_id.get(&id).is_none_or(|network| network.deletion.is_some()) {
            return;
        }
        self.unindex(id);
        let Some(mut network) = self.by_id.remove(&id) else { return };
        (network.name, network.spec, network.metadata) = (name, spec, metadata);
        (network.version, network.generation, network.updated_at) =
            (header.stream_version, header.position, header.time);
        self.insert(id, network);
    }

    /// Applies a deletion that is complete when all of these nodes have reported the removal.
    fn delete(&mut self, header: &Header, id: NetworkId, awaited: BTreeSet<NodeId>) {
        self.unindex(id);
        let Some(network) = self.by_id.get_mut(&id) else { return };
        network.version = header.stream_version;
        network.generation = header.position;
        network.deletion = Some(Deletion { awaited });
        self.drop_if_removed(id);
    }

    /// Records a reported status. Returns the previous one.
    pub(super) fn report(&mut self, id: NetworkId, node_id: NodeId, status: ReportedStatus) -> Option<ReportedStatus> {
        let network = self.by_id.get_mut(&id)?;
        let is_removed = status.outcome == Outcome::Removed;
        let previous = network.outcomes.insert(node_id, status);
        if let (Some(deletion), true) = (&mut network.deletion, is_removed) {
            deletion.awaited.remove(&node_id);
            self.drop_if_removed(id);
        }
        previous
    }

    /// Drops the statuses of a node that was removed, and no longer awaits its reports.
    pub(super) fn node_removed(&mut self, node_id: NodeId) {
        self.by_id.retain(|_, network| {
            network.outcomes.remove(&node_id);
            let Some(deletion) = &mut network.deletion else { return true };
            deletion.awaited.remove(&node_id);
            !deletion.awaited.is_empty()
        });
    }

    /// Drops a deleted network once every node has reported its removal.
    fn drop_if_removed(&mut self, id: NetworkId) {
        let deletion = self.by_id.get(&id).and_then(|network| network.deletion.as_ref());
        if deletion.is_some_and(|deletion| deletion.awaited.is_empty()) {
            self.by_id.remove(&id);
        }
    }
}

impl State {
    /// Returns a network, deleted or not.
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(id)
    }

    /// Returns a network that is not deleted.
    pub fn live_network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(id).filter(|network| network.deletion.is_none())
    }

    /// Returns the networks that are not deleted.
    pub fn live_networks(&self) -> impl Iterator<Item = (NetworkId, &Network)> {
        self.networks.live()
    }

    /// Returns whether a reachable node has not reported on the last decision about a network yet.
    pub fn has_pending_reports(&self, id: NetworkId) -> bool {
        let Some(network) = self.networks.get(id) else { return false };
        let is_outdated = |node| network.outcomes.get(node).is_none_or(|status| status.generation < network.generation);
        self.roster().members.iter().any(|(node, reachable)| *reachable && is_outdated(node))
    }

    pub(super) fn evolve_network(&mut self, header: &Header, event: &NetworkEvent) {
        match event {
            NetworkEvent::Created(NetworkCreated { network_id, name, spec }) => {
                let network = Network {
                    name: name.clone(),
                    spec: spec.clone(),
                    metadata: Metadata::default(),
                    version: header.stream_version,
                    generation: header.position,
                    created_at: header.time,
                    updated_at: header.time,
                    deletion: None,
                    outcomes: BTreeMap::new(),
                };
                self.networks.insert(*network_id, network);
            }
            NetworkEvent::Changed(event) => self.networks.change(header, event),
            NetworkEvent::Deleted(NetworkDeleted { network_id, name: _ }) => {
                let awaited = self.nodes().keys().copied().collect();
                self.networks.delete(header, *network_id, awaited);
            }
        }
    }
}

pub(super) fn decide(state: &State, config: &ClusterConfig, command: &NetworkCommand) -> Result<Decision, Rejection> {
    match command {
        NetworkCommand::Create { network_id, network } => create(&state.networks, config, *network_id, network),
        NetworkCommand::Change { network_id, if_generation, changes } => {
            change::change(state, config, *network_id, *if_generation, changes)
        }
        NetworkCommand::Apply { network_id, if_generation, draft } => {
            change::apply(state, config, *network_id, *if_generation, draft)
        }
        NetworkCommand::Delete { network_id } => delete(state, *network_id),
    }
}

fn create(
    networks: &Networks,
    config: &ClusterConfig,
    network_id: NetworkId,
    network: &NewNetwork,
) -> Result<Decision, Rejection> {
    let NewNetwork { name, spec, metadata: _ } = network.clone();
    if let Some(other) = networks.by_name.get(&name.key()) {
        return Err(Rejection::NameTaken { name, other });
    }
    let spec = match spec {
        NewNetworkSpec::Bridge(bridge) => {
            check_bridge(networks, &bridge)?;
            NetworkSpec::Bridge(bridge)
        }
        NewNetworkSpec::Overlay { subnet, egress, dhcp, allow_spoofing } => NetworkSpec::Overlay(OverlaySpec {
            vni: config.vnis.after(networks.highest_vni).ok_or(Rejection::VnisUsedUp)?,
            subnet,
            egress,
            mtu: config.underlay_mtu.of_overlay().map_err(Rejection::UnderlayMtu)?,
            dhcp,
            allow_spoofing,
        }),
    };
    check_subnet(networks, None, &spec)?;
    Ok(change::creation(NetworkCreated { network_id, name, spec }, network).into())
}

/// Two networks share a bridge only if it is unmanaged, so comparing with the first one on it suffices.
fn check_bridge(networks: &Networks, bridge: &BridgeSpec) -> Result<(), Rejection> {
    let first = networks.by_bridge.get(bridge.bridge_name.as_str()).and_then(BTreeSet::first);
    match first.and_then(|id| networks.get(*id)) {
        Some(other) if bridge.ownership != Ownership::Unmanaged || other.spec.managed() => {
            Err(Rejection::BridgeTaken { bridge: bridge.bridge_name.clone(), other: other.name.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

/// The subnets of networks with NAT egress must not overlap, or a node could not route replies. `own` is the network
/// that is changed, if it is not a new one.
fn check_subnet(networks: &Networks, own: Option<NetworkId>, spec: &NetworkSpec) -> Result<(), Rejection> {
    let Some(nat) = spec.nat() else { return Ok(()) };
    let overlapping = networks.nat_subnets.overlapping(nat.subnet(), own);
    match overlapping.and_then(|(taken, id)| Some((taken, networks.get(id)?))) {
        Some((taken, other)) => {
            Err(Rejection::SubnetOverlaps { subnet: nat.subnet(), other: other.name.clone(), taken })
        }
        None => Ok(()),
    }
}

fn delete(state: &State, network_id: NetworkId) -> Result<Decision, Rejection> {
    let network = state.live_network(network_id).ok_or(Rejection::NoSuchNetwork(network_id))?;
    let vm_nics = state.nics.count_of_network(network_id);
    if vm_nics > 0 {
        return Err(Rejection::NetworkInUse { name: network.name.clone(), vm_nics });
    }
    Ok(Decision::one(NetworkDeleted { network_id, name: network.name.clone() }))
}

/// Returns the network that the events create, change or delete, as it is after them.
pub(super) fn reply(before: &State, command: &NetworkCommand, envelopes: &[EventEnvelope]) -> Reply {
    match command {
        NetworkCommand::Change { .. } | NetworkCommand::Apply { .. } => {
            return change::reply(before, command, envelopes);
        }
        NetworkCommand::Create { .. } | NetworkCommand::Delete { .. } => {}
    }
    let view = envelopes.iter().rev().find_map(|EventEnvelope { header, event }| match event {
        Event::Network(event) => view(before, header, event),
        Event::Vm(_) | Event::Nic(_) | Event::Node(_) | Event::User(_) | Event::Enrollment(_) | Event::Cluster(_) => {
            None
        }
    });
    view.map_or(Reply::Nothing, |view| Reply::Network(Box::new(view)))
}

/// The status of a network on which no node has reported yet.
fn new_status(before: &State) -> NetworkStatus {
    let expected = u64::try_from(before.nodes().len()).unwrap_or(u64::MAX);
    NetworkStatus { nodes: Some(Vec::new()), expected, ..NetworkStatus::default() }
}

fn view(before: &State, header: &Header, event: &NetworkEvent) -> Option<NetworkView> {
    let view = match event {
        NetworkEvent::Created(NetworkCreated { network_id, name, spec }) => {
            let lifetime = Lifetime { created_at: header.time, deleted_at: None };
            NetworkView::new(*network_id, name.clone(), spec, header.position, lifetime)
        }
        NetworkEvent::Changed(NetworkChanged { network_id, name, spec, metadata }) => {
            let created_at = before.live_network(*network_id).map_or(header.time, |network| network.created_at);
            let lifetime = Lifetime { created_at, deleted_at: None };
            let view = NetworkView::new(*network_id, name.clone(), spec, header.position, lifetime);
            view.with_metadata(metadata.clone()).with_updated_at(header.time)
        }
        NetworkEvent::Deleted(NetworkDeleted { network_id, name }) => {
            let network = before.live_network(*network_id)?;
            let lifetime = Lifetime { created_at: network.created_at, deleted_at: Some(header.time) };
            NetworkView::new(*network_id, name.clone(), &network.spec, header.position, lifetime)
                .with_metadata(network.metadata.clone())
        }
    };
    Some(view.with_status(new_status(before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_overlapping_subnet() {
        let subnet = |text: &str| -> Ipv4Subnet { text.parse().unwrap() };
        let mut subnets = NatSubnets::default();
        for (number, text) in ["10.0.0.0/16", "10.1.4.0/24", "10.1.8.0/22"].into_iter().enumerate() {
            let id = NetworkId::new(uuid::Uuid::from_u128(number as u128));
            subnets.0.insert(subnet(text).network(), (subnet(text), id));
        }
        let found = |text: &str| subnets.overlapping(subnet(text), None).map(|(found, _)| found.to_string());
        assert_eq!(found("10.0.255.0/24").as_deref(), Some("10.0.0.0/16"), "within");
        assert_eq!(found("10.0.0.0/8").as_deref(), Some("10.0.0.0/16"), "around");
        assert_eq!(found("10.1.0.0/16").as_deref(), Some("10.1.4.0/24"), "around one that begins later");
        assert_eq!(found("10.1.4.0/24").as_deref(), Some("10.1.4.0/24"), "the same");
        assert_eq!(found("10.1.11.252/30").as_deref(), Some("10.1.8.0/22"), "at its end");
        for free in ["10.1.5.0/24", "10.1.0.0/22", "10.1.12.0/22", "9.0.0.0/8", "11.0.0.0/8"] {
            assert_eq!(found(free), None, "{free}");
        }
    }
}
