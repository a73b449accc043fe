//! What the packet filters of other programs do with typical packets of a network.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::rc::Rc;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;

use super::text::{self, Loss};
use super::way::{self, Example, Exchange, Protocol};
use crate::device::nat::observe::NatState;
use crate::engine::PlanContext;
use crate::engine::context::{PlanInputs, SharedValue};
use crate::model::desired::{DesiredNetwork, DesiredOverlay, Want};
use crate::model::filter::packet::Device;
use crate::model::filter::walk::{ConnectionState, Culprit, Fate, Filter};
use crate::model::ip::Gateway;
use crate::model::link::{BRIDGE, Link};
use crate::model::link_group::LinkGroup;
use crate::model::observed::Observed;
use crate::model::route::Prefix;

/// Hosts outside that rules for single hosts and networks do not mean.
const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(52, 97, 133, 7), Ipv4Addr::new(185, 203, 114, 9)];

/// Ports that restrictive rules accept, and others.
const PORTS: [(u16, u16); 2] = [(443, 53), (24_601, 24_601)];

/// What the packet filters of other programs do with the packets of each network, determined once in a plan.
#[derive(Default)]
pub(super) struct ForeignFilterState {
    judgements: RefCell<BTreeMap<NetworkId, Rc<Judgement>>>,
}

impl SharedValue for ForeignFilterState {
    fn compute(_: &PlanInputs<'_>) -> Self {
        Self::default()
    }
}

/// What the packet filters of other programs prevent in a network.
#[derive(Clone, Debug, Default)]
pub(super) struct Judgement {
    /// Guests do not reach whom they must reach.
    pub(super) lost: Option<String>,
    /// Some packets may be lost.
    pub(super) warnings: Vec<String>,
}

impl Judgement {
    pub(super) fn outcome(&self) -> Outcome {
        self.lost.clone().map_or(Outcome::Ready, Outcome::Pending)
    }
}

/// A network on this node: its bridge, and two ports of it.
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

impl ForeignFilterState {
    /// Returns what the packet filters of other programs prevent in a network.
    pub(super) fn judge(&self, context: &PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> Rc<Judgement> {
        let known = self.judgements.borrow().get(&id).cloned();
        known.unwrap_or_else(|| {
            let judgement = Rc::new(judge(context, id, network));
            self.judgements.borrow_mut().insert(id, Rc::clone(&judgement));
            judgement
        })
    }
}

fn judge(context: &PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> Judgement {
    let observed = context.observed;
    let Some(bridge) = network.want.bridge().filter(|_| !observed.foreign.is_empty()) else {
        return Judgement::default();
    };
    let link = match &network.want {
        Want::Unmanaged(_) => observed.named(&bridge.name),
        Want::Bridge(_) | Want::Overlay(_) | Want::Unsupported(_) | Want::Nothing => {
            context.survey.best_of(id.uuid(), BRIDGE, &bridge.name).0
        }
    };
    let Some(link) = link else { return Judgement::default() };
    let mut trial = Trial { filter: Filter::new(&observed.foreign), losses: BTreeMap::new() };
    let segment = Segment::of(observed, link, network);
    let guests = bridge.nat.map_or([None; 2], |gateway| examples_of(gateway).map(Some));
    let is_filtered = observed.firewall.bridged;
    for protocol in [Protocol::Arp, Protocol::Echo, Protocol::Tcp, Protocol::Udp] {
        let examples = examples(guests, [guests[1], guests[0]]);
        trial.add(
            Between::Guests,
            segment.has_neighbours,
            protocol,
            examples.map(|example| way::between(&segment, is_filtered, protocol, &example)),
        );
    }
    if let Some(gateway) = bridge.nat {
        trial.nat(context, id, &segment, gateway);
    }
    if let Want::Overlay(overlay) = &network.want {
        trial.overlay(observed, overlay);
    }
    trial.judgement(&link.name)
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
struct Trial<'a> {
    filter: Filter<'a>,
    losses: BTreeMap<Culprit, Loss>,
}

impl Trial<'_> {
    /// Tries connections with the gateway and outside.
    fn nat(&mut self, context: &PlanContext<'_>, id: NetworkId, segment: &Segment, gateway: Gateway) {
        let observed = context.observed;
        let guests = examples_of(gateway).map(Some);
        let to_gateway = examples(guests, [Some(gateway.address); 2]);
        for (protocol, is_vital) in [(Protocol::Arp, true), (Protocol::Echo, false)] {
            let exchanges = to_gateway.map(|example| way::gateway(segment, protocol, &example));
            self.add(Between::GuestAndGateway, is_vital, protocol, exchanges);
        }
        let state = context.shared::<NatState>();
        let uplinks = state.default_uplinks(id).filter_map(|index| observed.link(index));
        let uplinks: Vec<_> = uplinks
            .map(|link| {
                let addresses = observed.ip.addresses.get(&link.index);
                let address = addresses.and_then(BTreeSet::first).map(|address| address.address);
                (device(link, None), address)
            })
            .collect();
        if uplinks.is_empty() {
            return;
        }
        let to_outside = examples(guests, OUTSIDE.map(Some));
        for protocol in [Protocol::Echo, Protocol::Tcp, Protocol::Udp] {
            let exchanges = uplinks
                .iter()
                .flat_map(|uplink| to_outside.map(|example| way::outside(segment, uplink, protocol, &example)));
            self.add(Between::GuestAndOutside, true, protocol, exchanges);
        }
    }

    /// Tries connections with another node that has guests of the overlay.
    fn overlay(&mut self, observed: &Observed, overlay: &DesiredOverlay) {
        if let (Some(mesh), Some(other)) = (observed.mesh(), overlay.flood.first()) {
            let exchange = way::vxlan(&device(mesh, None), overlay.vtep.port, overlay.vtep.local, *other);
            self.add(Between::Nodes, true, Protocol::Udp, [exchange]);
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
        let mut by_culprit: BTreeMap<Culprit, (usize, bool, bool)> = BTreeMap::new();
        let mut lost = 0;
        for exchange in exchanges {
            count += 1;
            let mut connection = ConnectionState::new();
            let Exchange { request, reply, next } = &exchange;
            let fates = [(false, request), (true, reply), (false, next)]
                .map(|(is_answer, way)| (is_answer, self.filter.send(way, &mut connection)));
            lost += usize::from(fates.iter().any(|(_, fate)| fate.lost.is_some()));
            let mut of_exchange: BTreeMap<Culprit, (bool, bool, bool)> = BTreeMap::new();
            for (is_answer, Fate { lost, at_risk }) in fates {
                let culprits = lost.into_iter().map(|culprit| (culprit, true));
                for (culprit, is_certain) in culprits.chain(at_risk.into_iter().map(|culprit| (culprit, false))) {
                    let (certain, requests, answers) = of_exchange.entry(culprit).or_default();
                    *certain |= is_certain;
                    *requests |= !is_answer;
                    *answers |= is_answer;
                }
            }
            for (culprit, (is_certain, requests, answers)) in of_exchange {
                let (certain, of_requests, of_answers) = by_culprit.entry(culprit).or_default();
                *certain += usize::from(is_certain);
                *of_requests |= requests;
                *of_answers |= answers;
            }
        }
        // Each example is lost, if not by the same rule.
        let is_certain = count > 0 && lost == count;
        for (culprit, (certain, requests, answers)) in by_culprit {
            let loss = self.losses.entry(culprit).or_insert_with(|| Loss::new(between));
            let is_certain = is_certain && certain > 0;
            loss.add(between, protocol, is_certain, is_certain && is_vital);
            loss.requests |= requests;
            loss.answers |= answers;
        }
    }

    fn judgement(self, bridge: &str) -> Judgement {
        let (vital, others): (Vec<_>, Vec<_>) = self.losses.into_iter().partition(|(_, loss)| loss.is_vital);
        let lost: Vec<_> = vital.iter().map(|(culprit, loss)| text::lost(culprit, loss, bridge)).collect();
        let warnings = others.iter().map(|(culprit, loss)| text::lost(culprit, loss, bridge)).collect();
        Judgement { lost: (!lost.is_empty()).then(|| lost.join("; ")), warnings }
    }
}
