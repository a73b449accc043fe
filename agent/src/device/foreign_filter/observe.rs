//! What the packet filters of other programs do with typical packets of a network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use otherix_schemas::id::NetworkId;

use super::path::{self, Example, Exchange, Protocol};
use super::text::{self, Loss};
use crate::device::nat::observe::NatState;
use crate::engine::PlanContext;
use crate::model::desired::{Desired, DesiredNetwork, DesiredOverlay, Want};
use crate::model::filter::ForeignFilter;
use crate::model::filter::packet::Device;
use crate::model::filter::walk::{ConnectionState, DropSource, Filter, PacketOutcome};
use crate::model::ip::Gateway;
use crate::model::link::{BRIDGE, Link};
use crate::model::link_group::LinkGroup;
use crate::model::observed::Observed;
use crate::model::route::Prefix;

/// Hosts outside that rules for single hosts and networks do not mean.
const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(52, 97, 133, 7), Ipv4Addr::new(185, 203, 114, 9)];

/// Ports that restrictive rules accept, and others.
const PORTS: [(u16, u16); 2] = [(443, 53), (24_601, 24_601)];

/// The verdicts of earlier plans, each with all that it follows from.
#[derive(Default)]
pub(super) struct FilterVerdicts {
    filter: Arc<ForeignFilter>,
    by_network: BTreeMap<NetworkId, (ProbeInputs, FilterVerdict)>,
}

/// What the packet filters of other programs prevent in a network.
#[derive(Clone, Debug, Default)]
pub(super) struct FilterVerdict {
    /// Guests do not reach whom they must reach.
    pub(super) lost: Option<String>,
    /// Some packets may be lost.
    pub(super) warnings: Vec<String>,
}

/// A network on this node: its bridge, and two ports of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) bridge: Device,
    pub(super) ports: [Device; 2],
    /// The bridge has two ports or more, so that guests may miss each other.
    has_neighbours: bool,
}

/// Between whom packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Between {
    Guests,
    GuestAndOutside,
    GuestAndGateway,
    Nodes,
}

/// All that the packets of a network which are tried depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeInputs {
    segment: Segment,
    /// Bridged packets traverse the IPv4 filter.
    is_filtered: bool,
    nat: Option<NatInputs>,
    overlay: Option<OverlayInputs>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NatInputs {
    gateway: Gateway,
    /// The links that lead outside, with the node's address on each.
    uplinks: Vec<(Device, Option<Ipv4Addr>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OverlayInputs {
    mesh: Device,
    /// The UDP port of VXLAN.
    port: u16,
    local: Ipv4Addr,
    /// Another node with guests of the overlay.
    other: Ipv4Addr,
}

impl FilterVerdicts {
    /// Returns what the packet filters of other programs prevent in a network.
    pub(super) fn of(&mut self, filter: &Arc<ForeignFilter>, id: NetworkId, inputs: ProbeInputs) -> FilterVerdict {
        if !Arc::ptr_eq(filter, &self.filter) {
            if self.filter != *filter {
                self.by_network.clear();
            }
            self.filter = Arc::clone(filter);
        }
        if let Some((known, verdict)) = self.by_network.get(&id)
            && *known == inputs
        {
            return verdict.clone();
        }
        let verdict = inputs.verdict(filter);
        self.by_network.insert(id, (inputs, verdict.clone()));
        verdict
    }

    /// Forgets networks that are gone.
    pub(super) fn retain(&mut self, desired: &Desired) {
        if self.by_network.len() > desired.networks.len() {
            self.by_network.retain(|id, _| desired.networks.contains_key(id));
        }
    }
}

impl ProbeInputs {
    /// Returns those of a network, if it has a bridge on this node.
    pub(super) fn of(context: &PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> Option<Self> {
        let observed = context.observed;
        let bridge = network.want.bridge()?;
        let link = match &network.want {
            Want::Unmanaged(_) => observed.named(&bridge.name),
            Want::Bridge(_) | Want::Overlay(_) | Want::Unsupported(_) | Want::Nothing => {
                context.survey.best_of(id.uuid(), BRIDGE, &bridge.name).0
            }
        }?;
        let overlay = match &network.want {
            Want::Overlay(overlay) => OverlayInputs::of(observed, overlay),
            Want::Bridge(_) | Want::Unmanaged(_) | Want::Unsupported(_) | Want::Nothing => None,
        };
        Some(Self {
            segment: Segment::of(observed, link, network),
            is_filtered: observed.firewall.bridged,
            nat: bridge.nat.map(|gateway| NatInputs::of(context, id, gateway)),
            overlay,
        })
    }

    fn verdict(&self, filter: &ForeignFilter) -> FilterVerdict {
        let Self { segment, is_filtered, nat, overlay } = self;
        let mut probe = FilterProbe { filter: Filter::new(filter), losses: BTreeMap::new() };
        let guests = nat.as_ref().map_or([None; 2], |nat| examples_of(nat.gateway).map(Some));
        for protocol in [Protocol::Arp, Protocol::Echo, Protocol::Tcp, Protocol::Udp] {
            let examples = examples(guests, [guests[1], guests[0]]);
            probe.add(
                Between::Guests,
                segment.has_neighbours,
                protocol,
                examples.map(|example| path::between(segment, *is_filtered, protocol, &example)),
            );
        }
        if let Some(nat) = nat {
            probe.nat(segment, nat);
        }
        if let Some(OverlayInputs { mesh, port, local, other }) = overlay {
            let exchange = path::vxlan(mesh, *port, *local, *other);
            probe.add(Between::Nodes, true, Protocol::Udp, [exchange]);
        }
        probe.verdict(&segment.bridge.name)
    }
}

impl NatInputs {
    fn of(context: &PlanContext<'_>, id: NetworkId, gateway: Gateway) -> Self {
        let observed = context.observed;
        let state = context.shared::<NatState>();
        let uplinks = state.default_uplinks(id).filter_map(|index| observed.link(index));
        let uplinks = uplinks.map(|link| {
            let addresses = observed.ip.addresses.get(&link.index);
            let address = addresses.and_then(BTreeSet::first).map(|address| address.address);
            (device(link, None), address)
        });
        Self { gateway, uplinks: uplinks.collect() }
    }
}

impl OverlayInputs {
    fn of(observed: &Observed, overlay: &DesiredOverlay) -> Option<Self> {
        let (mesh, other) = (observed.mesh()?, *overlay.flood.first()?);
        Some(Self { mesh: device(mesh, None), port: overlay.vtep.port, local: overlay.vtep.local, other })
    }
}

/// Two examples of connections between these guests and peers.
fn examples(guests: [Option<Ipv4Addr>; 2], peers: [Option<Ipv4Addr>; 2]) -> [Example; 2] {
    let [first, second] = guests;
    let [one, other] = peers;
    [(first, one, PORTS[0]), (second, other, PORTS[1])].map(|(guest, peer, (tcp_port, udp_port))| Example {
        guest,
        peer,
        tcp_port,
        udp_port,
    })
}

/// Returns the first and the last address of the subnet that guests may have.
fn examples_of(gateway: Gateway) -> [Ipv4Addr; 2] {
    let subnet = Prefix::from(gateway.subnet);
    let (first, last) = (subnet.first().to_bits() + 1, subnet.last().to_bits() - 1);
    let own = gateway.address.to_bits();
    let first = if first == own { first + 1 } else { first };
    let last = if last == own { last - 1 } else { last };
    [first, last].map(Ipv4Addr::from_bits)
}

impl Segment {
    fn of(observed: &Observed, bridge: &Link, network: &DesiredNetwork) -> Self {
        let mut ports: Vec<_> = observed.ports_of(bridge.index).collect();
        // Our taps first, then others, such as the uplink of an unmanaged bridge, or the VTEP of an overlay.
        let is_tap = |link: &&Link| observed.owner(link).is_some() && !link.is_vtep();
        ports.sort_by_key(|link| !is_tap(link));
        if let Some(last) = ports.last().copied().filter(|link| ports.len() > 1 && !is_tap(link)) {
            ports.insert(1, last);
        }
        let has_neighbours = ports.len() > 1;
        let mut ports = ports.into_iter().map(|link| device(link, Some(&bridge.name)));
        let no_port = || {
            let isolated = network.want.bridge().is_none_or(|bridge| bridge.nat.is_none());
            let group = if isolated { LinkGroup::IsolatedTap } else { LinkGroup::Tap };
            // Of a guest that may come.
            let name = "ot0123456789ab".to_owned();
            Device { name, index: u32::MAX, group: Some(group.number()), bridge: Some(bridge.name.clone()) }
        };
        let mut next = || ports.next().unwrap_or_else(no_port);
        Self { ports: [next(), next()], bridge: device(bridge, None), has_neighbours }
    }
}

fn device(link: &Link, bridge: Option<&String>) -> Device {
    Device { name: link.name.clone(), index: link.index, group: link.group, bridge: bridge.cloned() }
}

/// Connections that are tried, and what is lost of them.
struct FilterProbe<'a> {
    filter: Filter<'a>,
    losses: BTreeMap<DropSource, Loss>,
}

impl FilterProbe<'_> {
    /// Tries connections with the gateway and outside.
    fn nat(&mut self, segment: &Segment, nat: &NatInputs) {
        let NatInputs { gateway, uplinks } = nat;
        let guests = examples_of(*gateway).map(Some);
        let to_gateway = examples(guests, [Some(gateway.address); 2]);
        for (protocol, is_vital) in [(Protocol::Arp, true), (Protocol::Echo, false)] {
            let exchanges = to_gateway.map(|example| path::gateway(segment, protocol, &example));
            self.add(Between::GuestAndGateway, is_vital, protocol, exchanges);
        }
        if uplinks.is_empty() {
            return;
        }
        let to_outside = examples(guests, OUTSIDE.map(Some));
        for protocol in [Protocol::Echo, Protocol::Tcp, Protocol::Udp] {
            let exchanges = uplinks
                .iter()
                .flat_map(|uplink| to_outside.map(|example| path::outside(segment, uplink, protocol, &example)));
            self.add(Between::GuestAndOutside, true, protocol, exchanges);
        }
    }

    /// Sends the packets of examples. What loses packets of all of them is to blame for certain.
    fn add(
        &mut self,
        between: Between,
        is_vital: bool,
        protocol: Protocol,
        exchanges: impl IntoIterator<Item = Exchange>,
    ) {
        let mut count = 0;
        let mut by_source: BTreeMap<DropSource, (usize, bool, bool)> = BTreeMap::new();
        let mut lost = 0;
        for exchange in exchanges {
            count += 1;
            let mut connection = ConnectionState::new();
            let Exchange { request, reply, next } = &exchange;
            let outcomes = [(false, request), (true, reply), (false, next)]
                .map(|(is_answer, path)| (is_answer, self.filter.send(path, &mut connection)));
            lost += usize::from(outcomes.iter().any(|(_, outcome)| outcome.lost.is_some()));
            let mut of_exchange: BTreeMap<DropSource, (bool, bool, bool)> = BTreeMap::new();
            for (is_answer, PacketOutcome { lost, at_risk }) in outcomes {
                let sources = lost.into_iter().map(|source| (source, true));
                for (source, is_certain) in sources.chain(at_risk.into_iter().map(|source| (source, false))) {
                    let (certain, requests, answers) = of_exchange.entry(source).or_default();
                    *certain |= is_certain;
                    *requests |= !is_answer;
                    *answers |= is_answer;
                }
            }
            for (source, (is_certain, requests, answers)) in of_exchange {
                let (certain, of_requests, of_answers) = by_source.entry(source).or_default();
                *certain += usize::from(is_certain);
                *of_requests |= requests;
                *of_answers |= answers;
            }
        }
        // Each example is lost, if not by the same rule.
        let is_certain = count > 0 && lost == count;
        for (source, (certain, requests, answers)) in by_source {
            let loss = self.losses.entry(source).or_insert_with(|| Loss::new(between));
            let is_certain = is_certain && certain > 0;
            loss.add(between, protocol, is_certain, is_certain && is_vital);
            loss.requests |= requests;
            loss.answers |= answers;
        }
    }

    fn verdict(self, bridge: &str) -> FilterVerdict {
        let (vital, others): (Vec<_>, Vec<_>) = self.losses.into_iter().partition(|(_, loss)| loss.is_vital);
        let lost: Vec<_> = vital.iter().map(|(source, loss)| text::lost(source, loss, bridge)).collect();
        let warnings = others.iter().map(|(source, loss)| text::lost(source, loss, bridge)).collect();
        FilterVerdict { lost: (!lost.is_empty()).then(|| lost.join("; ")), warnings }
    }
}

#[cfg(test)]
mod tests {
    use otherix_schemas::id::ClusterId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_verdict_is_computed_again_only_if_something_that_it_follows_from_changed() {
        let device = |name: &str| Device { name: name.to_owned(), index: 2, group: None, bridge: None };
        let inputs = |bridge: &str| ProbeInputs {
            segment: Segment { bridge: device(bridge), ports: ["a", "b"].map(device), has_neighbours: true },
            is_filtered: false,
            nat: None,
            overlay: None,
        };
        let filter = |name: &str| {
            let chains = serde_json::json!({ "c": { "base": { "hook": "forward", "drops": true } } });
            let table = serde_json::json!([{ "family": "bridge", "name": name, "chains": chains }]);
            Arc::new(serde_json::from_value::<ForeignFilter>(table).unwrap())
        };
        let id = NetworkId::new(Uuid::nil());
        let (first, mut verdicts) = (filter("t"), FilterVerdicts::default());
        let verdict = verdicts.of(&first, id, inputs("br-1"));
        assert!(verdict.lost.as_ref().is_some_and(|lost| lost.contains("`bridge t c` drops")), "{verdict:?}");
        let mark = |verdicts: &mut FilterVerdicts| {
            verdicts.by_network.values_mut().for_each(|(_, verdict)| verdict.lost = None)
        };
        mark(&mut verdicts);
        for same in [first.clone(), filter("t")] {
            assert_eq!(verdicts.of(&same, id, inputs("br-1")).lost, None, "the one that is known");
        }
        assert!(verdicts.of(&filter("t"), id, inputs("br-2")).lost.is_some(), "another bridge");
        mark(&mut verdicts);
        assert!(verdicts.of(&filter("other"), id, inputs("br-2")).lost.is_some(), "another filter");
        verdicts.retain(&Desired::nothing(ClusterId::new(Uuid::nil()), false));
        assert!(verdicts.by_network.is_empty());
    }
}
