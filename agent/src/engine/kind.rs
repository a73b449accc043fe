//! What a kind of device provides. A kind is a folder of [`crate::device`] and a line in its list.

use std::collections::BTreeSet;

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::outcome::{Outcome, ResourceRef};
use uuid::Uuid;

use super::context::PlanContext;
use crate::device::tap::desired::DesiredTap;
use crate::model::change::Change;
use crate::model::desired::{Desired, DesiredNetwork};
use crate::model::link::Link;
use crate::model::observed::Observed;

/// The kinds of devices, in the order in which they are planned. A device that depends on another, as a port does on
/// its bridge, comes after it, and is removed before it.
pub type Kinds = &'static [&'static dyn DeviceKind];

/// What the plan says of a network or NIC: its outcome, or `None` while a step about it is planned.
pub type Verdict = Option<Outcome>;

/// A kind of device that the agent manages.
///
/// The planning functions are pure: they compare desired and observed state, add steps to the context, and return what
/// is known of a resource already. `Ready` is returned only for what the observed state confirms, so that after the
/// steps the plan is made again from what is then observed.
///
/// A kind that is partly managed by a task of its own, beside the passes (because a protocol with another process must
/// not delay them), has its results observed through [`super::Reconciler::observe`].
pub trait DeviceKind: Sync {
    fn name(&self) -> &'static str;

    /// Its name in texts for people.
    fn label(&self) -> &'static str {
        self.name()
    }

    /// The links of this kind: none, if it has no links of its own that an owner's alias marks.
    fn links(&self) -> Option<Links> {
        None
    }

    /// The parts of the observed state that its plan depends on.
    fn interest(&self, _desired: &Desired) -> Interest {
        Interest::default()
    }

    /// Adds the names of the devices that a network requires or depends on.
    fn network_names(&self, _network: &DesiredNetwork, _names: &mut BTreeSet<String>) {}

    /// Adds the names of the devices that a NIC requires or depends on.
    fn nic_names(&self, _tap: &DesiredTap, _names: &mut BTreeSet<String>) {}

    /// Whether the owner of a device of this kind requires it.
    fn claim(&self, _desired: &Desired, _owner: Uuid, _link: &Link) -> Claim {
        Claim::Unknown
    }

    /// Plans what concerns the whole node, before any network.
    fn plan_node(&self, _context: &mut PlanContext<'_>) {}

    /// Plans a network that is not deleted and that this node supports.
    fn plan_network(&self, _context: &mut PlanContext<'_>, _id: NetworkId, _network: &DesiredNetwork) -> Verdict {
        Some(Outcome::Ready)
    }

    /// Plans a NIC that is not detached.
    fn plan_nic(&self, _context: &mut PlanContext<'_>, _id: NicId, _tap: &DesiredTap) -> Verdict {
        Some(Outcome::Ready)
    }

    /// Whether nothing of this kind refers any more to networks whose devices are removed.
    fn is_released(&self, _context: &PlanContext<'_>) -> bool {
        true
    }

    /// Whether the notification concerns this kind, though no plan depends on it: for a kind with a task of its own.
    fn is_notified(&self, _change: &Change, _observed: &Observed) -> bool {
        false
    }
}

/// The links of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links {
    /// `IFLA_INFO_KIND`.
    pub kind: &'static str,
    /// What the id in their alias is of.
    pub owner: OwnerKind,
}

/// The kinds of resources that devices are created for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKind {
    Network,
    Nic,
}

impl OwnerKind {
    /// Returns the resource of this kind with this id.
    pub fn resource(self, id: Uuid) -> ResourceRef {
        match self {
            Self::Network => ResourceRef::Network(NetworkId::new(id)),
            Self::Nic => ResourceRef::Nic(NicId::new(id)),
        }
    }
}

/// Whether the owner of a device requires it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    Required,
    /// The device must not be there, and is not ours to remove, for this reason.
    Conflict(String),
    /// The device is to be removed.
    Obsolete,
    /// The owner is not known.
    Unknown,
}

/// The parts of the observed state that plans depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Bridge ports, for networks.
    pub network_ports: bool,
    /// Bridge ports, for NICs.
    pub nic_ports: bool,
    /// IPv4, and what other tables of the packet filter contain.
    pub ipv4: bool,
    /// Our table of the packet filter.
    pub firewall: bool,
}

impl Interest {
    /// Returns what the plans of all kinds depend on.
    pub fn of(kinds: Kinds, desired: &Desired) -> Self {
        kinds.iter().map(|kind| kind.interest(desired)).fold(Self::default(), |one, other| Self {
            network_ports: one.network_ports || other.network_ports,
            nic_ports: one.nic_ports || other.nic_ports,
            ipv4: one.ipv4 || other.ipv4,
            firewall: one.firewall || other.firewall,
        })
    }

    pub fn ports(self) -> bool {
        self.network_ports || self.nic_ports
    }
}

/// Returns the names of the devices that a network requires or depends on.
pub fn network_names(kinds: Kinds, network: &DesiredNetwork, names: &mut BTreeSet<String>) {
    kinds.iter().for_each(|kind| kind.network_names(network, names));
}
