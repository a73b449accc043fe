//! Determines the owners of devices.

use otherix_schemas::id::ClusterId;
use otherix_schemas::outcome::ResourceRef;
use uuid::Uuid;

use super::kind::{DeviceKind, Kinds, LinkKind, OwnerClaim};
use crate::model::desired::Desired;
use crate::model::link::Link;
use crate::model::observed::Observed;
use crate::model::owner::Owner;

/// The device that has a name, by whose it is.
#[derive(Clone, Copy)]
pub enum NameHolder<'a> {
    /// A device of ours.
    Ours(OwnedDevice<'a>),
    /// A device with a temporary name and no owner, whose creation was not completed.
    Incomplete(&'a Link),
    /// A device that otherix did not create for this cluster.
    Foreign(&'a Link),
    /// The name is an alternative name of this device, ours or not.
    Alternative(&'a Link),
}

/// A device of ours.
#[derive(Clone, Copy)]
pub struct OwnedDevice<'a> {
    pub link: &'a Link,
    pub kind: &'static dyn DeviceKind,
    pub link_kind: LinkKind,
    /// The id of the network or NIC.
    pub owner: Uuid,
}

impl OwnedDevice<'_> {
    pub fn resource(&self) -> ResourceRef {
        self.link_kind.owner.resource(self.owner)
    }

    /// Returns whether the owner requires the device.
    pub fn claim(&self, desired: &Desired) -> OwnerClaim {
        self.kind.claim(desired, self.owner, self.link)
    }
}

/// Looks up which observed devices belong to which network or NIC of the cluster.
#[derive(Clone, Copy)]
pub struct DeviceSurvey<'a> {
    kinds: Kinds,
    cluster: ClusterId,
    observed: &'a Observed,
}

impl<'a> DeviceSurvey<'a> {
    pub fn new(kinds: Kinds, cluster: ClusterId, observed: &'a Observed) -> Self {
        Self { kinds, cluster, observed }
    }

    /// Returns the device with this name or alternative name.
    pub fn named(&self, name: &str) -> Option<NameHolder<'a>> {
        let link = self.observed.named(name)?;
        Some(if link.name != name {
            NameHolder::Alternative(link)
        } else if let Some(owned) = self.owned(link) {
            NameHolder::Ours(owned)
        } else if self.incomplete().any(|other| other.index == link.index) {
            NameHolder::Incomplete(link)
        } else {
            NameHolder::Foreign(link)
        })
    }

    /// Returns the owner's links with this `IFLA_INFO_KIND`.
    pub fn links_of(&self, owner: Uuid, info_kind: &str) -> impl Iterator<Item = &'a Link> {
        let owner = Owner { cluster: self.cluster, id: owner };
        self.observed.owned(owner).filter(move |link| link.kind == info_kind)
    }

    /// Returns the owner's link with this `IFLA_INFO_KIND`, and surplus ones: of several, the one with the right name
    /// is kept.
    pub fn best_of(&self, owner: Uuid, info_kind: &str, name: &str) -> (Option<&'a Link>, Vec<&'a Link>) {
        let mut links: Vec<_> = self.links_of(owner, info_kind).collect();
        let best = links.iter().position(|link| link.name == name).unwrap_or(0);
        let ours = (best < links.len()).then(|| links.remove(best));
        (ours, links)
    }

    /// Returns devices of ours that belong to no known network or NIC.
    pub fn orphans(&self, desired: &'a Desired) -> impl Iterator<Item = &'a Link> {
        let owners = self.observed.owners().filter(|owner| owner.cluster == self.cluster);
        let links = owners.flat_map(|owner| self.observed.owned(owner)).filter_map(|link| self.owned(link));
        links.filter(|owned| !is_known(desired, owned.resource())).map(|owned| owned.link)
    }

    /// Returns devices with a temporary name and no owner, whose creation was not completed.
    pub fn incomplete(&self) -> impl Iterator<Item = &'a Link> {
        self.observed.temporary().filter(|link| self.kind_of(link).is_some())
    }

    /// Returns a port of the bridge that is not ours.
    pub fn foreign_port(&self, bridge: &Link) -> Option<&'a Link> {
        self.observed.ports_of(bridge.index).find(|port| self.owner(port).is_none())
    }

    /// Whether the alias of a device of ours contains its owner.
    pub fn is_labelled(&self, link: &Link) -> bool {
        self.observed.is_labelled(link)
    }

    /// Returns the device kind that has links like this one.
    pub fn kind_of(&self, link: &Link) -> Option<(&'static dyn DeviceKind, LinkKind)> {
        let with_link_kind = self.kinds.iter().filter_map(|kind| Some((*kind, kind.link_kind()?)));
        with_link_kind.into_iter().find(|(_, link_kind)| link_kind.info_kind == link.kind)
    }

    fn owned(&self, link: &'a Link) -> Option<OwnedDevice<'a>> {
        let owner = self.owner(link)?.id;
        let (kind, link_kind) = self.kind_of(link)?;
        Some(OwnedDevice { link, kind, link_kind, owner })
    }

    fn owner(&self, link: &Link) -> Option<Owner> {
        self.observed.owner(link).filter(|owner| owner.cluster == self.cluster)
    }
}

fn is_known(desired: &Desired, resource: ResourceRef) -> bool {
    match resource {
        ResourceRef::Network(id) => desired.networks.contains_key(&id),
        ResourceRef::Nic(id) => desired.nics.contains_key(&id),
        ResourceRef::Vm(id) => desired.vms.contains_key(&id),
    }
}
