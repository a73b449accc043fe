//! The packet filters of other programs: whether they let pass what the guests of a network send and receive. Nothing
//! is changed: a network whose traffic they drop is not ready, with the chain that does, and what to add there.
//!
//! - `path`: the hooks that packets of a network pass on this node
//! - `observe`: what the chains do with some typical packets ([`crate::model::filter`])
//! - `text`: what to tell about it

mod observe;
mod path;
mod text;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;

use self::observe::{FilterVerdict, FilterVerdicts, ProbeInputs};
use crate::engine::kind::PlannedOutcome;
use crate::engine::{DeviceKind, Interest, PlanContext};
use crate::model::desired::{Desired, DesiredNetwork};

/// The kind of what packet filters of other programs prevent. It has no devices.
pub struct ForeignFilterKind;

impl DeviceKind for ForeignFilterKind {
    fn name(&self) -> &'static str {
        "foreign_filter"
    }

    fn interest(&self, desired: &Desired) -> Interest {
        Interest { foreign: desired.bridges().next().is_some(), ..Interest::default() }
    }

    fn plan_node(&self, context: &mut PlanContext<'_>) {
        let desired = context.inputs().desired;
        context.remembered(|verdicts: &mut FilterVerdicts| verdicts.retain(desired));
    }

    fn plan_network(&self, context: &mut PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> PlannedOutcome {
        let filter = &context.inputs().observed.foreign;
        if filter.is_empty() {
            return Some(Outcome::Ready);
        }
        let Some(inputs) = ProbeInputs::of(context, id, network) else { return Some(Outcome::Ready) };
        let FilterVerdict { lost, warnings } =
            context.remembered(|verdicts: &mut FilterVerdicts| verdicts.of(filter, id, inputs));
        warnings.into_iter().for_each(|warning| context.warn(id, warning));
        Some(lost.map_or(Outcome::Ready, Outcome::Pending))
    }
}
