//! The cluster as this node knows it: a fold of the decisions. Total: no event is refused, none is decided about.

use std::collections::BTreeMap;

use otherix_schemas::event::{Event, NetworkCreated, NetworkDeleted};
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::NetworkSpec;
use otherix_schemas::outcome::Thing;
use otherix_schemas::position::Position;
use otherix_schemas::value::NetworkName;

/// What has been decided, up to a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    position: Position,
    networks: BTreeMap<NetworkId, Network>,
}

/// A network, as last decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: NetworkName,
    /// The position of the last decision about it.
    pub generation: Position,
    /// What was decided last.
    pub life: Life,
}

/// Whether a network is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is, like this.
    Defined(NetworkSpec),
    /// It is not; the control plane has not confirmed yet that this node has removed it.
    Deleted,
}

impl View {
    /// The last decision that was folded.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The networks, deleted ones too until they are forgotten.
    pub fn networks(&self) -> impl Iterator<Item = (NetworkId, &Network)> {
        self.networks.iter().map(|(id, network)| (*id, network))
    }

    /// Folds one more event. One that is not beyond the view's position was folded before and changes nothing.
    pub fn apply(&mut self, position: Position, event: Event) {
        if position <= self.position {
            return;
        }
        self.position = position;
        match event {
            Event::NetworkCreated(NetworkCreated { network_id, name, spec }) => {
                let network = Network { name, generation: position, life: Life::Defined(spec) };
                self.networks.insert(network_id, network);
            }
            Event::NetworkDeleted(NetworkDeleted { network_id, name }) => {
                let network = Network { name, generation: position, life: Life::Deleted };
                self.networks.insert(network_id, network);
            }
            Event::VmCreated(_)
            | Event::VmDeleted(_)
            | Event::NicAttached(_)
            | Event::NicBound(_)
            | Event::NicDetached(_)
            | Event::NodeJoined(_)
            | Event::NodeUnreachable(_)
            | Event::NodeReachable(_)
            | Event::NodeReconciled(_)
            | Event::ClusterRestored(_) => {}
        }
    }

    /// The last decision about each network, oldest first: [`View::restored`] makes the same view of them.
    pub fn decisions(&self) -> impl Iterator<Item = (Position, Event)> {
        let mut decisions: Vec<_> = self.networks.iter().collect();
        decisions.sort_by_key(|(id, network)| (network.generation, **id));
        decisions.into_iter().map(|(id, network)| {
            let (network_id, name) = (*id, network.name.clone());
            let event = match network.life.clone() {
                Life::Defined(spec) => Event::NetworkCreated(NetworkCreated { network_id, name, spec }),
                Life::Deleted => Event::NetworkDeleted(NetworkDeleted { network_id, name }),
            };
            (network.generation, event)
        })
    }

    /// The view at `position` that was made of these decisions, which are in the order of their positions.
    pub fn restored(position: Position, decisions: impl IntoIterator<Item = (Position, Event)>) -> Self {
        let mut view = Self::default();
        for (generation, event) in decisions {
            view.apply(generation, event);
        }
        view.position = view.position.max(position);
        view
    }

    /// Drops a deleted network whose removal is confirmed, and says whether it did. One that is defined stays.
    pub fn forget(&mut self, thing: Thing) -> bool {
        let Thing::Network(id) = thing else { return false };
        let deleted = self.networks.get(&id).is_some_and(|network| network.life == Life::Deleted);
        if deleted {
            self.networks.remove(&id);
        }
        deleted
    }
}

#[cfg(test)]
mod tests {
    use otherix_schemas::network::{BridgeSpec, Ownership};
    use otherix_schemas::value::Mtu;

    use super::*;

    fn id() -> NetworkId {
        "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap()
    }

    fn created() -> Event {
        let spec = NetworkSpec::Bridge(BridgeSpec {
            bridge_name: "br-app".parse().unwrap(),
            ownership: Ownership::Unmanaged,
            mtu: Mtu::DEFAULT,
            vlan: None,
        });
        Event::NetworkCreated(NetworkCreated { network_id: id(), name: "net".parse().unwrap(), spec })
    }

    fn deleted() -> Event {
        Event::NetworkDeleted(NetworkDeleted { network_id: id(), name: "net".parse().unwrap() })
    }

    #[test]
    fn an_event_seen_again_changes_nothing() {
        let mut view = View::default();
        view.apply(Position::new(4), created());
        view.apply(Position::new(7), deleted());
        let before = view.clone();
        view.apply(Position::new(4), created());
        view.apply(Position::new(7), deleted());
        assert_eq!(view, before);
        assert_eq!(view.position(), Position::new(7));
    }

    #[test]
    fn a_deleted_network_stays_until_it_is_forgotten_and_a_defined_one_is_never() {
        let mut view = View::default();
        view.apply(Position::new(1), created());
        assert!(!view.forget(Thing::Network(id())));
        assert_eq!(view.networks().count(), 1);
        view.apply(Position::new(2), deleted());
        let (_, network) = view.networks().next().unwrap();
        assert_eq!((network.generation, &network.life), (Position::new(2), &Life::Deleted));
        assert!(view.forget(Thing::Network(id())));
        assert_eq!(view.networks().count(), 0);
    }
}
