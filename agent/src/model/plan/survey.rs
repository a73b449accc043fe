//! The links of a node, by whose they are.

use otherix_schemas::id::{ClusterId, NetworkId};

use crate::model::desired::Desired;
use crate::model::observed::{Link, Observed};
use crate::model::owner::Owner;

/// Who has a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holder<'a> {
    /// A bridge of ours, for this network.
    Ours(&'a Link, NetworkId),
    /// A bridge that was left in the making.
    LeftOver(&'a Link),
    /// Somebody else's device.
    Foreign(&'a Link),
    /// It is an alternative name of this device, whosesoever.
    Alternative(&'a Link),
}

pub(super) struct Survey<'a> {
    cluster: ClusterId,
    observed: &'a Observed,
}

impl<'a> Survey<'a> {
    pub(super) fn new(cluster: ClusterId, observed: &'a Observed) -> Self {
        Self { cluster, observed }
    }

    pub(super) fn named(&self, name: &str) -> Option<Holder<'a>> {
        self.observed.named(name).map(|link| match self.bridge_of(link) {
            _ if link.name != name => Holder::Alternative(link),
            Some(network) => Holder::Ours(link, network),
            None if self.observed.left_over().any(|left| left.index == link.index) => Holder::LeftOver(link),
            None => Holder::Foreign(link),
        })
    }

    /// The network's bridge, the one with the right name if there are several, and the others.
    pub(super) fn of_network(&self, network: NetworkId, name: &str) -> (Option<&'a Link>, Vec<&'a Link>) {
        let mut links = self.all_of_network(network);
        let best = links.iter().position(|link| link.name == name).unwrap_or(0);
        let ours = (best < links.len()).then(|| links.remove(best));
        (ours, links)
    }

    pub(super) fn all_of_network(&self, network: NetworkId) -> Vec<&'a Link> {
        let owner = Owner { cluster: self.cluster, network };
        self.observed.owned(owner).filter(|link| link.is_bridge()).collect()
    }

    /// Bridges of ours whose network is not among the desired.
    pub(super) fn unknown_to(&self, desired: &Desired) -> Vec<&'a Link> {
        let owners = self.observed.owners().filter(|owner| owner.cluster == self.cluster);
        let unknown = owners.map(|owner| owner.network).filter(|network| !desired.networks.contains_key(network));
        unknown.flat_map(|network| self.all_of_network(network)).collect()
    }

    pub(super) fn left_over(&self) -> Vec<&'a Link> {
        self.observed.left_over().collect()
    }

    /// A port of the bridge that is not ours.
    pub(super) fn foreign_port(&self, bridge: &Link) -> Option<&'a Link> {
        self.observed.ports(bridge.index).find(|port| self.owner(port).is_none())
    }

    /// Whether the alias of a bridge of ours says so.
    pub(super) fn is_labelled(&self, link: &Link) -> bool {
        self.observed.is_labelled(link)
    }

    /// The network that a bridge of ours is for.
    fn bridge_of(&self, link: &Link) -> Option<NetworkId> {
        self.owner(link).filter(|_| link.is_bridge())
    }

    fn owner(&self, link: &Link) -> Option<NetworkId> {
        let owner = self.observed.owner(link)?;
        (owner.cluster == self.cluster).then_some(owner.network)
    }
}
