//! The links of a node, by whose they are.

use std::collections::BTreeMap;

use otherix_schemas::id::{ClusterId, NetworkId};

use crate::model::desired::Desired;
use crate::model::observed::{BRIDGE, Link, Observed};
use crate::model::owner::{Owner, is_temporary};

/// Who has a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holder<'a> {
    /// A bridge of ours, for this network.
    Ours(&'a Link, NetworkId),
    /// A bridge that was left in the making.
    LeftOver(&'a Link),
    /// Somebody else's device.
    Foreign(&'a Link),
}

pub(super) struct Survey<'a> {
    cluster: ClusterId,
    names: BTreeMap<&'a str, &'a Link>,
    owned: BTreeMap<NetworkId, Vec<&'a Link>>,
    ports: BTreeMap<u32, Vec<&'a Link>>,
}

impl<'a> Survey<'a> {
    pub(super) fn new(cluster: ClusterId, observed: &'a Observed) -> Self {
        let mut survey = Self { cluster, names: BTreeMap::new(), owned: BTreeMap::new(), ports: BTreeMap::new() };
        for link in observed.links() {
            survey.names.insert(&link.name, link);
            if let Some(network) = survey.owner(link) {
                survey.owned.entry(network).or_default().push(link);
            }
            if let Some(master) = link.master {
                survey.ports.entry(master).or_default().push(link);
            }
        }
        survey
    }

    pub(super) fn named(&self, name: &str) -> Option<Holder<'a>> {
        self.names.get(name).map(|link| match self.owner(link) {
            Some(network) => Holder::Ours(link, network),
            None if is_left_over(link) => Holder::LeftOver(link),
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
        self.owned.get(&network).cloned().unwrap_or_default()
    }

    pub(super) fn unknown_to(&self, desired: &Desired) -> Vec<&'a Link> {
        let unknown = self.owned.iter().filter(|(network, _)| !desired.networks.contains_key(network));
        unknown.flat_map(|(_, links)| links.iter().copied()).collect()
    }

    pub(super) fn left_over(&self) -> Vec<&'a Link> {
        let links = self.names.values().copied().filter(|link| is_left_over(link));
        links.filter(|link| self.owner(link).is_none()).collect()
    }

    /// A port of the bridge that is not ours.
    pub(super) fn foreign_port(&self, bridge: &Link) -> Option<&'a Link> {
        let ports = self.ports.get(&bridge.index)?;
        ports.iter().copied().find(|port| self.alias(port).is_none())
    }

    /// The network that a bridge of ours is for.
    fn owner(&self, link: &Link) -> Option<NetworkId> {
        self.alias(link).filter(|_| link.kind == BRIDGE)
    }

    fn alias(&self, link: &Link) -> Option<NetworkId> {
        let owner = link.alias.as_deref()?.parse::<Owner>().ok()?;
        (owner.cluster == self.cluster).then_some(owner.network)
    }
}

/// A kill between a bridge's making and its naming leaves it without an alias, under a name that only we give.
fn is_left_over(link: &Link) -> bool {
    link.kind == BRIDGE && is_temporary(&link.name)
}
