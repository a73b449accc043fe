//! The packet filters of other programs: whether they let pass what the guests of a network send and receive. Nothing
//! is changed: a network whose traffic they drop is not ready, with the chain that does, and what to add there.
//!
//! - `way`: the hooks that packets of a network pass on this node
//! - `observe`: what the chains do with some typical packets ([`crate::model::filter`])
//! - `text`: what to tell about it

mod observe;
mod text;
mod way;

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::outcome::Outcome;

use self::observe::ForeignFilterState;
use crate::engine::kind::PlannedOutcome;
use crate::engine::{DeviceKind, Interest, PlanContext};
use crate::model::desired::{Desired, DesiredNetwork, DesiredTap};

/// The kind of what packet filters of other programs prevent. It has no devices.
pub struct ForeignFilterKind;

impl DeviceKind for ForeignFilterKind {
    fn name(&self) -> &'static str {
        "foreign_filter"
    }

    fn interest(&self, desired: &Desired) -> Interest {
        Interest { foreign: desired.bridges().next().is_some(), ..Interest::default() }
    }

    fn plan_network(&self, context: &mut PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> PlannedOutcome {
        let judgement = context.shared::<ForeignFilterState>().judge(context, id, network);
        judgement.warnings.iter().for_each(|warning| context.warn(id, warning.clone()));
        Some(judgement.outcome())
    }

    fn plan_nic(&self, context: &mut PlanContext<'_>, _: NicId, tap: &DesiredTap) -> PlannedOutcome {
        let inputs = context.inputs();
        let Some(network) = inputs.desired.networks.get(&tap.network) else { return Some(Outcome::Ready) };
        let judgement = context.shared::<ForeignFilterState>().judge(context, tap.network, network);
        Some(judgement.outcome())
    }
}
