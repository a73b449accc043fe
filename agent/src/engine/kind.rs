//! The trait that a device kind implements.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::outcome::{Outcome, ResourceRef};
use uuid::Uuid;

use super::context::PlanContext;
use crate::model::desired::{Desired, DesiredNetwork, DesiredTap};
use crate::model::link::Link;
use crate::model::notification::Notification;
use crate::model::observed::Observed;

/// The device kinds, in the order in which they are planned. A kind that depends on another, as ports depend on
/// bridges, comes after it; its devices are removed before those of the other.
pub type Kinds = &'static [&'static dyn DeviceKind];

/// The outcome of a network or NIC according to a plan; `None` if the plan has a step for it.
pub type PlannedOutcome = Option<Outcome>;

/// A device kind.
///
/// The planning functions are pure: they compare desired and observed state, add steps to the context, and return the
/// outcome as far as it is known. They return `Ready` only if the observed state confirms it: after its steps have been
/// executed, a plan is made again.
///
/// A kind may have a task of its own beside the passes, for example because a protocol with another process must not
/// delay them. The results of that task are observed through [`super::Reconciler::observe`].
pub trait DeviceKind: Sync {
    fn name(&self) -> &'static str;

    /// Its name in outcomes.
    fn label(&self) -> &'static str {
        self.name()
    }

    /// The links of this kind, if it has links with an owner's alias.
    fn link_kind(&self) -> Option<LinkKind> {
        None
    }

    /// Returns the parts of the observed state that its plan depends on.
    fn interest(&self, _desired: &Desired) -> Interest {
        Interest::default()
    }

    /// Adds the addresses whose route lookups its plan depends on.
    fn look_ups(&self, _desired: &Desired, _observed: &Observed, _addresses: &mut BTreeSet<Ipv4Addr>) {}

    /// Adds the networks whose plan may depend on the route lookups of these addresses.
    fn depend_on_lookups(
        &self,
        _desired: &Desired,
        _observed: &Observed,
        _addresses: &BTreeSet<Ipv4Addr>,
        _networks: &mut BTreeSet<NetworkId>,
    ) {
    }

    /// Adds the names of the devices that a network requires or depends on.
    fn network_names(&self, _network: &DesiredNetwork, _names: &mut BTreeSet<String>) {}

    /// Adds the names of the devices that a NIC requires or depends on.
    fn nic_names(&self, _tap: &DesiredTap, _names: &mut BTreeSet<String>) {}

    /// Returns whether the owner of a device of this kind requires it.
    fn claim(&self, _desired: &Desired, _owner: Uuid, _link: &Link) -> OwnerClaim {
        OwnerClaim::Unknown
    }

    /// Plans what concerns the whole node, before any network.
    fn plan_node(&self, _context: &mut PlanContext<'_>) {}

    /// Plans a network that is not deleted and that this node supports.
    fn plan_network(
        &self,
        _context: &mut PlanContext<'_>,
        _id: NetworkId,
        _network: &DesiredNetwork,
    ) -> PlannedOutcome {
        Some(Outcome::Ready)
    }

    /// Plans a NIC that is not detached.
    fn plan_nic(&self, _context: &mut PlanContext<'_>, _id: NicId, _tap: &DesiredTap) -> PlannedOutcome {
        Some(Outcome::Ready)
    }

    /// Whether nothing of this kind refers to networks without devices any more.
    fn is_unreferenced(&self, _context: &PlanContext<'_>) -> bool {
        true
    }

    /// Whether the notification concerns this kind although no plan depends on it: for a kind with a task of its own.
    fn is_notified(&self, _change: &Notification, _observed: &Observed) -> bool {
        false
    }
}

/// The links of a device kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkKind {
    /// `IFLA_INFO_KIND`.
    pub info_kind: &'static str,
    /// The kind of the resource whose id is in their alias.
    pub owner: OwnerKind,
}

/// The kinds of resources that own devices.
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
pub enum OwnerClaim {
    Required,
    /// The device must not exist, and is not ours to remove, for this reason.
    Conflict(String),
    /// The device is to be removed.
    Obsolete,
    /// No decision about the owner is known.
    Unknown,
}

/// The parts of the observed state that plans depend on, besides links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Bridge ports, for outcomes of networks.
    pub network_ports: bool,
    /// Bridge ports, for outcomes of NICs.
    pub nic_ports: bool,
    pub ipv4: bool,
    /// Our tables of the packet filter.
    pub firewall: bool,
    /// The tables of other programs.
    pub foreign: bool,
}

impl Interest {
    /// Returns what the plans of all kinds depend on.
    pub fn of(kinds: Kinds, desired: &Desired) -> Self {
        kinds.iter().map(|kind| kind.interest(desired)).fold(Self::default(), |one, other| Self {
            network_ports: one.network_ports || other.network_ports,
            nic_ports: one.nic_ports || other.nic_ports,
            ipv4: one.ipv4 || other.ipv4,
            firewall: one.firewall || other.firewall,
            foreign: one.foreign || other.foreign,
        })
    }

    pub fn ports(self) -> bool {
        self.network_ports || self.nic_ports
    }
}

/// Adds the names of the devices that a network requires or depends on.
pub fn network_names(kinds: Kinds, network: &DesiredNetwork, names: &mut BTreeSet<String>) {
    kinds.iter().for_each(|kind| kind.network_names(network, names));
}
