//! The guest filter: tables of the packet filter that separate the guests of all networks from the node itself, and
//! drop what no guest may send. They are the same for all networks, are written when the first network or NIC requires
//! them, and stay until the node was removed from the cluster and has no device of ours any more. Only their sets say
//! which addresses the guests of single taps may use; elements are added before the tap is created, and removed when
//! the NIC is detached.
//!
//! The filter recognises our links by their group ([`crate::model::link_group`]), which bridges and taps get when they
//! are created.

pub mod action;
mod apply;
pub mod observe;
mod plan;
mod text;

use otherix_schemas::id::{NetworkId, NicId};

use self::observe::GuestFilterState;
use crate::engine::kind::PlannedOutcome;
use crate::engine::{DeviceKind, Interest, PlanContext};
use crate::model::desired::{Desired, DesiredNetwork, DesiredTap};

/// The device kind of the guest filter.
pub struct GuestFilterKind;

impl DeviceKind for GuestFilterKind {
    fn name(&self) -> &'static str {
        "guests"
    }

    fn interest(&self, desired: &Desired) -> Interest {
        Interest { firewall: observe::is_required(desired), ..Interest::default() }
    }

    fn plan_node(&self, context: &mut PlanContext<'_>) {
        plan::node(context);
    }

    fn plan_network(&self, context: &mut PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> PlannedOutcome {
        plan::network(context, id, network)
    }

    fn plan_nic(&self, context: &mut PlanContext<'_>, _: NicId, tap: &DesiredTap) -> PlannedOutcome {
        plan::nic(context, tap)
    }

    fn is_unreferenced(&self, context: &PlanContext<'_>) -> bool {
        !context.shared::<GuestFilterState>().is_to_be_removed()
    }
}
