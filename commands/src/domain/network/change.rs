//! Changes of networks: what of a definition can be changed in a state.

use std::net::Ipv4Addr;

use otherix_schemas::change::{Applied, ChangeResult, field_changes};
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::event::{DomainEvent, Event};
use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::network::{
    Lifetime, NetworkChanged, NetworkCommand, NetworkCreated, NetworkDefinition, NetworkDraft, NetworkEvent,
    NetworkView, NewNetwork,
};
use otherix_schemas::position::Position;
use otherix_schemas::value::{GatewaySubnet, NetworkName};
use otherix_schemas::violations::Violations;
use serde_json::{Map, Value, json};

use super::{Network, check_subnet, create, new_status};
use crate::config::ClusterConfig;
use crate::domain::rejection::GenerationConflict;
use crate::domain::{Decision, Rejection, Reply, State};

impl Network {
    /// What is decided about it.
    pub fn definition(&self) -> NetworkDefinition {
        let Self { name, spec, metadata, .. } = self.clone();
        NetworkDefinition { name, spec, metadata }
    }

    /// The view of it with another definition, without what nodes report.
    fn view(&self, id: NetworkId, definition: NetworkDefinition) -> NetworkView {
        let NetworkDefinition { name, spec, metadata } = definition;
        let lifetime = Lifetime { created_at: self.created_at, deleted_at: None };
        let view = NetworkView::new(id, name, &spec, self.generation, lifetime);
        view.with_metadata(metadata).with_updated_at(self.updated_at)
    }
}

/// Changes some fields of a network.
pub(super) fn change(
    state: &State,
    config: &ClusterConfig,
    network_id: NetworkId,
    if_generation: Option<Position>,
    changes: &Map<String, Value>,
) -> Result<Decision, Rejection> {
    let network = state.live_network(network_id).ok_or(Rejection::NoSuchNetwork(network_id))?;
    let wanted = network.definition().changed(changes.clone(), config.mesh);
    replace(state, (network_id, network), if_generation, wanted)
}

/// Creates the network of this name, or changes it to the draft.
pub(super) fn apply(
    state: &State,
    config: &ClusterConfig,
    new_id: NetworkId,
    if_generation: Option<Position>,
    draft: &NetworkDraft,
) -> Result<Decision, Rejection> {
    if let Some((id, network)) = named(state, &draft.name) {
        return replace(state, (id, network), if_generation, network.definition().replaced_by(draft, config.mesh));
    }
    let new = draft.check(Some(config.mesh)).map_err(Rejection::Invalid)?;
    match if_generation {
        None => create(&state.networks, config, new_id, &new),
        Some(expected) => Err(Rejection::NothingToReplace { name: new.name, expected }),
    }
}

/// Returns the network with this name, which is not deleted.
fn named<'a>(state: &'a State, name: &str) -> Option<(NetworkId, &'a Network)> {
    let id = state.networks.by_name.get(&NetworkName::parse(name).ok()?.key())?;
    Some((id, state.live_network(id)?))
}

/// Nothing is recorded if the network is so already.
fn replace(
    state: &State,
    (id, network): (NetworkId, &Network),
    if_generation: Option<Position>,
    wanted: Result<NetworkDefinition, Violations>,
) -> Result<Decision, Rejection> {
    let possible = wanted.and_then(|wanted| {
        let violations = check_in_use(state, id, network, &wanted);
        if violations.is_empty() { Ok(wanted) } else { Err(violations) }
    });
    if let Some(expected) = if_generation.filter(|expected| *expected != network.generation) {
        let requested = possible.ok().map(|wanted| json!(network.view(id, wanted)));
        let current = json!(network.view(id, network.definition()));
        let (name, actual) = (network.name.to_string(), network.generation);
        let conflict = GenerationConflict { noun: "network", name, expected, actual, current, requested };
        return Err(Rejection::GenerationChanged(Box::new(conflict)));
    }
    let wanted = possible.map_err(Rejection::Invalid)?;
    if wanted == network.definition() {
        return Ok(Decision::default());
    }
    check_subnet(&state.networks, Some(id), &wanted.spec)?;
    let NetworkDefinition { name, spec, metadata } = wanted;
    Ok(Decision::one(NetworkChanged { network_id: id, name, spec, metadata }))
}

/// Returns what the VMs on a network, and the taps that are not removed yet, prevent.
fn check_in_use(state: &State, id: NetworkId, network: &Network, wanted: &NetworkDefinition) -> Violations {
    let mut violations = Violations::default();
    let (before, after) = (&network.spec, &wanted.spec);
    let attached = state.nics.count_of_network(id);
    let is_used = attached > 0 || state.nics.addresses_of_network(id).next().is_some();
    if before.dhcp().is_some() != after.dhcp().is_some() && is_used {
        let rule = "cannot be changed while VMs are attached to the network";
        let advice = "delete them, and wait until their nodes have removed their taps, or create another network";
        violations.add("dhcp", format!("{rule} ({attached}): {advice}"));
    }
    if before.vlan().is_some() && after.vlan().is_none() && !before.managed() && attached > 0 {
        // Which VLAN an untagged port of a bridge that is not ours belongs to is up to its operator.
        let rule = "cannot be removed from an unmanaged bridge while VMs are attached to the network";
        violations.add("vlan", format!("{rule} ({attached}): set another VLAN, or delete the VMs first"));
    }
    if let (Some(old), Some(new)) = (before.dhcp(), after.dhcp())
        && old.subnet != new.subnet
    {
        check_addresses(state, id, new.subnet, &mut violations);
    }
    violations
}

/// Addresses that guests have stay theirs, so the subnet must hold them.
fn check_addresses(state: &State, id: NetworkId, subnet: GatewaySubnet, violations: &mut Violations) {
    let is_gateway = |(address, _): &(Ipv4Addr, NicId)| *address == subnet.gateway();
    if let Some(holder) = state.nics.addresses_of_network(id).find(is_gateway) {
        let rule = format!("must not be an address in use: {}", described(state, holder));
        violations.add("gateway", format!("{rule}. Choose another, or delete the VM first"));
    }
    let is_outside =
        |(address, _): &(Ipv4Addr, NicId)| subnet.check_guest(*address).is_err() && *address != subnet.gateway();
    let outside: Vec<_> = state.nics.addresses_of_network(id).filter(is_outside).collect();
    if let Some(first) = outside.first() {
        let more = match outside.len() {
            1 => String::new(),
            all => format!(", and {} more", all - 1),
        };
        let rule = format!("must hold all addresses in use: {}{more}", described(state, *first));
        violations.add("subnet", format!("{rule}. Choose one that does, or delete the VMs first"));
    }
}

/// Whose address it is.
fn described(state: &State, (address, nic): (Ipv4Addr, NicId)) -> String {
    let vm = state.nics.get(nic).and_then(|nic| state.vms().get(&nic.vm_id));
    match vm {
        Some(vm) => format!("`{address}` is that of VM `{}`", vm.name),
        None => format!("`{address}` is that of a deleted VM until its node has removed its tap"),
    }
}

/// Returns the answer to a request that changes or applies a network, which led to these events.
pub(super) fn reply(before: &State, command: &NetworkCommand, envelopes: &[EventEnvelope]) -> Reply {
    let applied = match envelopes.last() {
        None => unchanged(before, command),
        Some(last) => changed(before, last, envelopes.first()),
    };
    applied.map_or(Reply::Nothing, |applied| Reply::AppliedNetwork(Box::new(applied)))
}

fn unchanged(before: &State, command: &NetworkCommand) -> Option<Applied<NetworkView>> {
    let (id, network) = match command {
        NetworkCommand::Change { network_id, .. } => (*network_id, before.live_network(*network_id)?),
        NetworkCommand::Apply { draft, .. } => named(before, &draft.name)?,
        NetworkCommand::Create { .. } | NetworkCommand::Delete { .. } => return None,
    };
    let resource = network.view(id, network.definition()).with_status(new_status(before));
    Some(Applied { result: ChangeResult::Unchanged, changes: Vec::new(), resource })
}

/// The last event has all of the definition, and the first says whether it is new.
fn changed(before: &State, last: &EventEnvelope, first: Option<&EventEnvelope>) -> Option<Applied<NetworkView>> {
    let Event::Network(event) = &last.event else { return None };
    let resource = super::view(before, &last.header, event)?;
    let is_new = first.is_some_and(|first| matches!(first.event, Event::Network(NetworkEvent::Created(_))));
    if is_new {
        return Some(Applied { result: ChangeResult::Created, changes: Vec::new(), resource });
    }
    let NetworkEvent::Changed(after) = event else { return None };
    let NetworkDefinition { name, spec, metadata } = before.live_network(after.network_id)?.definition();
    let was = NetworkChanged { network_id: after.network_id, name, spec, metadata };
    let changes = field_changes(&json!(was.to_stored()), &json!(after.to_stored()));
    Some(Applied { result: ChangeResult::Changed, changes, resource })
}

/// Returns the events that create a network. What is said about it is an event of its own, which earlier versions of
/// the agent need not know as long as nothing is said.
pub(super) fn creation(created: NetworkCreated, new: &NewNetwork) -> Vec<Event> {
    let NetworkCreated { network_id, name, spec } = created.clone();
    let metadata = new.metadata.clone();
    let described = (!metadata.is_empty()).then(|| NetworkChanged { network_id, name, spec, metadata }.into());
    [created.into()].into_iter().chain(described).collect()
}
