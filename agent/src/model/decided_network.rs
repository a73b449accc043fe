//! A network according to the decisions, and what its bridges were on the way there.

use otherix_schemas::event::Event;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{NetworkChanged, NetworkCreated, NetworkDeleted, NetworkEvent, NetworkSpec};
use otherix_schemas::position::Position;
use otherix_schemas::value::{GatewaySubnet, Metadata, NetworkName};

/// A network, according to the decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedNetwork {
    pub name: NetworkName,
    pub generation: Position,
    pub state: NetworkState,
    /// Its last definition with each gateway that its bridge was and is no more, by position.
    former: Vec<(Position, NetworkSpec)>,
}

/// Whether a network is defined or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkState {
    Defined(NetworkSpec),
    /// Forgotten once the control plane has confirmed that this node has removed it.
    Deleted,
}

/// Most former gateways of a network that are known. A node that was away while a network had more of them keeps the
/// address of the oldest, as it keeps foreign ones.
const FORMER_MAX: usize = 64;

impl DecidedNetwork {
    pub(super) fn new(name: NetworkName, generation: Position, state: NetworkState) -> Self {
        Self { name, generation, state, former: Vec::new() }
    }

    /// The gateways that its bridge was, and is no more.
    pub fn former_gateways(&self) -> impl Iterator<Item = GatewaySubnet> {
        self.former.iter().filter_map(|(_, spec)| spec.nat())
    }

    pub(super) fn change(&mut self, position: Position, name: NetworkName, spec: NetworkSpec) {
        let nat = spec.nat();
        let before = std::mem::replace(&mut self.state, NetworkState::Defined(spec));
        if let NetworkState::Defined(before) = before
            && before.nat().is_some()
        {
            self.former.retain(|(_, other)| other.nat() != before.nat());
            self.former.push((self.generation, before));
        }
        self.former.retain(|(_, other)| other.nat() != nat);
        if self.former.len() > FORMER_MAX {
            self.former.remove(0);
        }
        (self.name, self.generation) = (name, position);
    }

    /// The decisions that produce it, oldest first.
    pub(super) fn decisions(&self, network_id: NetworkId) -> impl Iterator<Item = (Position, Event)> {
        let Self { name, generation, state, former } = self;
        let current = match state {
            NetworkState::Defined(spec) => Some((*generation, spec.clone())),
            NetworkState::Deleted => None,
        };
        let specs = former.iter().cloned().chain(current).enumerate();
        let defined = specs.map(move |(number, (at, spec))| {
            let name = name.clone();
            let event = if number == 0 {
                NetworkEvent::Created(NetworkCreated { network_id, name, spec })
            } else {
                // What people say about a network is nothing to a node.
                NetworkEvent::Changed(NetworkChanged { network_id, name, spec, metadata: Metadata::default() })
            };
            (at, Event::Network(event))
        });
        let deleted = (*state == NetworkState::Deleted).then(|| {
            (*generation, Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id, name: name.clone() })))
        });
        defined.chain(deleted)
    }
}

#[cfg(test)]
mod tests {
    use otherix_schemas::network::{BridgeSpec, Egress, Ownership};
    use otherix_schemas::value::Mtu;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::model::cluster_view::ClusterView;

    fn id() -> NetworkId {
        NetworkId::new(Uuid::from_u128(1))
    }

    fn gateway(number: u8) -> GatewaySubnet {
        GatewaySubnet::new(format!("10.20.{number}.0/24").parse().unwrap(), None).unwrap()
    }

    /// A bridge that is this gateway; with 0, none.
    fn spec(number: u8) -> NetworkSpec {
        let egress = if number == 0 { Egress::None } else { Egress::Nat(gateway(number)) };
        NetworkSpec::Bridge(BridgeSpec {
            bridge_name: "br-app".parse().unwrap(),
            ownership: Ownership::Managed(egress),
            mtu: Mtu::DEFAULT,
            vlan: None,
            dhcp: None,
            allow_spoofing: false,
        })
    }

    fn view(numbers: &[u8]) -> ClusterView {
        let mut view = ClusterView::default();
        for (at, number) in numbers.iter().enumerate() {
            let (name, spec): (NetworkName, _) = ("net".parse().unwrap(), spec(*number));
            let event: Event = if at == 0 {
                NetworkCreated { network_id: id(), name, spec }.into()
            } else {
                NetworkChanged { network_id: id(), name, spec, metadata: Metadata::default() }.into()
            };
            view.apply(Position::new(3 * at as u64 + 3), event);
        }
        view
    }

    fn former(numbers: &[u8]) -> Vec<GatewaySubnet> {
        view(numbers).network(id()).unwrap().former_gateways().collect()
    }

    #[test]
    fn the_gateways_that_a_bridge_is_no_more_are_known() {
        assert_eq!(former(&[1]), []);
        assert_eq!(former(&[1, 0]), [gateway(1)]);
        assert_eq!(former(&[1, 1, 2, 1]), [gateway(2)]);
        assert_eq!(former(&[0, 1, 2, 0, 3]), [gateway(1), gateway(2)]);
        let many: Vec<u8> = (1..=100).collect();
        assert_eq!(former(&many), (36..100).map(gateway).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn a_changed_network_is_restored_as_it_was(numbers in proptest::collection::vec(0..5_u8, 1..20)) {
            let mut view = view(&numbers);
            let restored = ClusterView::restored(view.position(), view.decisions());
            prop_assert_eq!(&restored, &view);
            let deleted = NetworkDeleted { network_id: id(), name: "net".parse().unwrap() };
            view.apply(Position::new(1000), deleted.into());
            prop_assert_eq!(view.decisions().count(), 1);
            prop_assert_eq!(ClusterView::restored(view.position(), view.decisions()), view);
        }
    }
}
