//! Which devices belong to whom.

use otherix_schemas::id::ClusterId;
use otherix_schemas::outcome::ResourceRef;
use uuid::Uuid;

use super::kind::{Claim, DeviceKind, Kinds, Links};
use crate::model::desired::Desired;
use crate::model::link::Link;
use crate::model::observed::Observed;
use crate::model::owner::Owner;

/// The device that has a name.
#[derive(Clone, Copy)]
pub enum Holder<'a> {
    /// A device of ours.
    Ours(Owned<'a>),
    /// A device that was left behind while it was created.
    LeftOver(&'a Link),
    /// A device that otherix did not create for this cluster.
    Foreign(&'a Link),
    /// It is an alternative name of this device, whosever that is.
    Alternative(&'a Link),
}

/// A device of ours.
#[derive(Clone, Copy)]
pub struct Owned<'a> {
    pub link: &'a Link,
    pub kind: &'static dyn DeviceKind,
    pub links: Links,
    /// The id of the network or NIC.
    pub owner: Uuid,
}

impl Owned<'_> {
    pub fn resource(&self) -> ResourceRef {
        self.links.owner.resource(self.owner)
    }

    /// Returns whether the owner requires the device.
    pub fn claim(&self, desired: &Desired) -> Claim {
        self.kind.claim(desired, self.owner, self.link)
    }
}

/// Answers to which network or NIC of the cluster the observed devices belong.
#[derive(Clone, Copy)]
pub struct Survey<'a> {
    kinds: Kinds,
    cluster: ClusterId,
    observed: &'a Observed,
}

impl<'a> Survey<'a> {
    pub fn new(kinds: Kinds, cluster: ClusterId, observed: &'a Observed) -> Self {
        Self { kinds, cluster, observed }
    }

    /// Returns the device that has this name, if one has.
    pub fn named(&self, name: &str) -> Option<Holder<'a>> {
        let link = self.observed.named(name)?;
        Some(if link.name != name {
            Holder::Alternative(link)
        } else if let Some(owned) = self.owned(link) {
            Holder::Ours(owned)
        } else if self.left_over().any(|left| left.index == link.index) {
            Holder::LeftOver(link)
        } else {
            Holder::Foreign(link)
        })
    }

    /// The owner's links of this kind.
    pub fn links_of(&self, owner: Uuid, link_kind: &str) -> impl Iterator<Item = &'a Link> {
        let owner = Owner { cluster: self.cluster, id: owner };
        self.observed.owned(owner).filter(move |link| link.kind == link_kind)
    }

    /// The owner's link of this kind: the one with the right name if there are several; and the others.
    pub fn best_of(&self, owner: Uuid, link_kind: &str, name: &str) -> (Option<&'a Link>, Vec<&'a Link>) {
        let mut links: Vec<_> = self.links_of(owner, link_kind).collect();
        let best = links.iter().position(|link| link.name == name).unwrap_or(0);
        let ours = (best < links.len()).then(|| links.remove(best));
        (ours, links)
    }

    /// Devices of ours whose owner is not known.
    pub fn orphans(&self, desired: &'a Desired) -> impl Iterator<Item = &'a Link> {
        let owners = self.observed.owners().filter(|owner| owner.cluster == self.cluster);
        let links = owners.flat_map(|owner| self.observed.owned(owner)).filter_map(|link| self.owned(link));
        links.filter(|owned| !is_known(desired, owned.resource())).map(|owned| owned.link)
    }

    /// Devices that were left behind while they were created.
    pub fn left_over(&self) -> impl Iterator<Item = &'a Link> {
        self.observed.temporary().filter(|link| self.kind_of(link).is_some())
    }

    /// A port of the bridge that is not ours.
    pub fn foreign_port(&self, bridge: &Link) -> Option<&'a Link> {
        self.observed.ports_of(bridge.index).find(|port| self.owner(port).is_none())
    }

    /// Whether the alias of a device of ours names its owner.
    pub fn is_labelled(&self, link: &Link) -> bool {
        self.observed.is_labelled(link)
    }

    /// The kind that has links like this one.
    pub fn kind_of(&self, link: &Link) -> Option<(&'static dyn DeviceKind, Links)> {
        let with_links = self.kinds.iter().filter_map(|kind| Some((*kind, kind.links()?)));
        with_links.into_iter().find(|(_, links)| links.kind == link.kind)
    }

    fn owned(&self, link: &'a Link) -> Option<Owned<'a>> {
        let owner = self.owner(link)?.id;
        let (kind, links) = self.kind_of(link)?;
        Some(Owned { link, kind, links, owner })
    }

    fn owner(&self, link: &Link) -> Option<Owner> {
        self.observed.owner(link).filter(|owner| owner.cluster == self.cluster)
    }
}

fn is_known(desired: &Desired, resource: ResourceRef) -> bool {
    match resource {
        ResourceRef::Network(id) => desired.networks.contains_key(&id),
        ResourceRef::Nic(id) => desired.nics.contains_key(&id),
    }
}
