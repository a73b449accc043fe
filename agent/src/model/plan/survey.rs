//! The links of a node, by whose they are.

use otherix_schemas::id::{ClusterId, NetworkId, NicId};

use crate::model::desired::Desired;
use crate::model::observed::{Link, Observed};
use crate::model::owner::Owner;

/// Who has a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holder<'a> {
    /// A bridge of ours, for this network.
    Ours(&'a Link, NetworkId),
    /// A VTEP of ours, for this network.
    OurVtep(&'a Link, NetworkId),
    /// A tap of ours, for this NIC.
    OurTap(&'a Link, NicId),
    /// A bridge, VTEP or tap that was left in the making.
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

    pub(super) fn observed(&self) -> &'a Observed {
        self.observed
    }

    pub(super) fn named(&self, name: &str) -> Option<Holder<'a>> {
        let link = self.observed.named(name)?;
        Some(match self.owner(link).map(|owner| owner.id) {
            _ if link.name != name => Holder::Alternative(link),
            Some(id) if link.is_bridge() => Holder::Ours(link, NetworkId::new(id)),
            Some(id) if link.is_vtep() => Holder::OurVtep(link, NetworkId::new(id)),
            Some(id) if link.is_tap() => Holder::OurTap(link, NicId::new(id)),
            Some(_) | None if self.observed.left_over().any(|left| left.index == link.index) => Holder::LeftOver(link),
            Some(_) | None => Holder::Foreign(link),
        })
    }

    /// The network's bridge, the one with the right name if there are several, and the others.
    pub(super) fn of_network(&self, network: NetworkId, name: &str) -> (Option<&'a Link>, Vec<&'a Link>) {
        best(self.all_of_network(network), name)
    }

    pub(super) fn all_of_network(&self, network: NetworkId) -> Vec<&'a Link> {
        let owner = Owner::of_network(self.cluster, network);
        self.observed.owned(owner).filter(|link| link.is_bridge()).collect()
    }

    /// The network's VTEP, the one with the right name if there are several, and the others.
    pub(super) fn vtep_of_network(&self, network: NetworkId, name: &str) -> (Option<&'a Link>, Vec<&'a Link>) {
        best(self.vteps_of_network(network), name)
    }

    pub(super) fn vteps_of_network(&self, network: NetworkId) -> Vec<&'a Link> {
        let owner = Owner::of_network(self.cluster, network);
        self.observed.owned(owner).filter(|link| link.is_vtep()).collect()
    }

    pub(super) fn all_of_nic(&self, nic: NicId) -> Vec<&'a Link> {
        let owner = Owner::of_nic(self.cluster, nic);
        self.observed.owned(owner).filter(|link| link.is_tap()).collect()
    }

    /// Bridges, VTEPs and taps of ours whose network or NIC is not among the desired.
    pub(super) fn unknown_to(&self, desired: &Desired) -> Vec<&'a Link> {
        let owners = self.observed.owners().filter(|owner| owner.cluster == self.cluster);
        let links = owners.flat_map(|owner| self.observed.owned(owner));
        let is_unknown = |link: &&Link| {
            self.network_of(link).is_some_and(|network| !desired.networks.contains_key(&network))
                || self.tap_of(link).is_some_and(|nic| !desired.nics.contains_key(&nic))
        };
        links.filter(is_unknown).collect()
    }

    /// Bridges of ours that no network is to have.
    pub(super) fn unwanted_bridges(&self, desired: &Desired) -> impl Iterator<Item = &'a Link> {
        let is_wanted =
            |network| matches!(desired.networks.get(&network), Some(network) if network.want.bridge().is_some());
        let links = self.observed.owners().flat_map(|owner| self.observed.owned(owner));
        links.filter(move |link| link.is_bridge() && !self.network_of(link).is_some_and(is_wanted))
    }

    pub(super) fn left_over(&self) -> Vec<&'a Link> {
        self.observed.left_over().collect()
    }

    /// A port of the bridge that is not ours.
    pub(super) fn foreign_port(&self, bridge: &Link) -> Option<&'a Link> {
        self.observed.ports(bridge.index).find(|port| self.owner(port).is_none())
    }

    /// Whether the alias of a device of ours says so.
    pub(super) fn is_labelled(&self, link: &Link) -> bool {
        self.observed.is_labelled(link)
    }

    /// The network that a bridge or VTEP of ours is for.
    fn network_of(&self, link: &Link) -> Option<NetworkId> {
        self.owner(link).filter(|_| link.is_bridge() || link.is_vtep()).map(|owner| NetworkId::new(owner.id))
    }

    /// The NIC that a tap of ours is for.
    fn tap_of(&self, link: &Link) -> Option<NicId> {
        self.owner(link).filter(|_| link.is_tap()).map(|owner| NicId::new(owner.id))
    }

    fn owner(&self, link: &Link) -> Option<Owner> {
        self.observed.owner(link).filter(|owner| owner.cluster == self.cluster)
    }
}

/// The one of this name, or the first; and the others.
fn best<'a>(mut links: Vec<&'a Link>, name: &str) -> (Option<&'a Link>, Vec<&'a Link>) {
    let best = links.iter().position(|link| link.name == name).unwrap_or(0);
    let ours = (best < links.len()).then(|| links.remove(best));
    (ours, links)
}
