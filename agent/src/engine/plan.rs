//! The plan: steps that turn the observed into the desired state, and the outcomes that are known before they are
//! executed.
//!
//! A plan considers all desired resources and all devices of ours, so that orphans are found. A device is ours if it is
//! of a device kind and has an alias of ours, or had one when it was first seen ([`crate::model::observed`]). No other
//! device is ever in a step, except incomplete ones with a temporary name, and what kinds plan for the whole node.

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::outcome::Outcome;
use serde::Serialize;
use uuid::Uuid;

use super::context::{PlanContext, PlanInputs};
use super::kind::{OwnerKind, PlannedOutcome};
use super::memo::Memos;
use super::step::Step;
use super::text;
use crate::model::desired::{DesiredNetwork, Want};

/// Steps, and the outcomes that are known before they are executed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// In this order: node-wide steps, creations and repairs, removals that a resource waits for, other removals.
    pub steps: Vec<Step>,
    /// Of networks without steps, and of those that must wait.
    pub outcomes: BTreeMap<NetworkId, Outcome>,
    /// Of NICs without steps, and of those that must wait.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nics: BTreeMap<NicId, Outcome>,
    /// What prevents networks from working and is not ours to change.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub warnings: BTreeMap<NetworkId, Vec<String>>,
    /// Networks that are withdrawn, because with them the node cannot reach what it must. The text says what.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub withdrawals: BTreeMap<NetworkId, String>,
    /// Problems with devices that belong to no known network or NIC.
    pub notices: Vec<String>,
    /// A resource waits for a change that the kernel may not notify of.
    #[serde(rename = "recheck", skip_serializing_if = "std::ops::Not::not")]
    pub must_recheck: bool,
}

/// Plans all resources and orphans.
pub fn plan(inputs: PlanInputs<'_>) -> Plan {
    plan_with(inputs, None, &mut Memos::default())
}

/// Plans all resources and orphans; or, with `only`, these networks and all NICs, but no other networks and no orphans.
/// `memos` are of earlier plans, or empty.
pub fn plan_with(inputs: PlanInputs<'_>, only: Option<&BTreeSet<NetworkId>>, memos: &mut Memos) -> Plan {
    let PlanInputs { kinds, desired, .. } = inputs;
    let mut context = PlanContext::new(inputs, memos);
    kinds.iter().for_each(|kind| kind.plan_node(&mut context));
    let mut networks: Vec<_> = match only {
        None => desired.networks.iter().map(|(id, network)| (*id, network)).collect(),
        Some(only) => only.iter().filter_map(|id| Some((*id, desired.networks.get(id)?))).collect(),
    };
    networks.sort_by_key(|(id, network)| (network.generation, *id));
    for (id, network) in networks {
        let outcome = plan_network(&mut context, id, network);
        context.set_network(id, outcome);
    }
    let mut nics: Vec<_> = desired.nics.iter().map(|(id, nic)| (*id, nic)).collect();
    nics.sort_by_key(|(id, nic)| (nic.generation, *id));
    for (id, nic) in nics {
        let outcome = match &nic.tap {
            None => remove_all(&mut context, id.uuid(), OwnerKind::Nic),
            Some(tap) => {
                let outcome = join(kinds.iter().map(|kind| kind.plan_nic(&mut context, id, tap)));
                outcome.map(|outcome| with_network(outcome, context.outcome(tap.network)))
            }
        };
        context.set_nic(id, outcome);
    }
    if only.is_none() {
        remove_orphans(&mut context);
    }
    context.into_plan()
}

fn plan_network(context: &mut PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> PlannedOutcome {
    match &network.want {
        Want::Unsupported(why) => Some(Outcome::Failed(why.clone())),
        Want::Nothing => {
            let outcome = remove_all(context, id.uuid(), OwnerKind::Network);
            let is_unreferenced = || context.kinds.iter().all(|kind| kind.is_unreferenced(context));
            outcome.filter(|outcome| *outcome != Outcome::Removed || is_unreferenced())
        }
        Want::Bridge(_) | Want::Overlay(_) | Want::Unmanaged(_) => {
            join(context.kinds.iter().map(|kind| kind.plan_network(context, id, network)))
        }
    }
}

/// Returns the outcome of a NIC, which is not ready while its network is not. A network that is not planned was ready
/// in the last plan.
fn with_network(nic: Outcome, network: Option<&Outcome>) -> Outcome {
    match (&nic, network) {
        (Outcome::Ready, Some(Outcome::Pending(why))) => Outcome::Pending(text::network_pending(why)),
        (Outcome::Ready, Some(Outcome::Failed(error))) => Outcome::Failed(text::network_failed(error)),
        (Outcome::Ready | Outcome::Pending(_) | Outcome::Failed(_) | Outcome::Removed, _) => nic,
    }
}

/// Combines the outcomes of all kinds for a resource: returns the first that is not ready. All of them are evaluated,
/// because evaluating one adds its steps.
fn join(outcomes: impl Iterator<Item = PlannedOutcome>) -> PlannedOutcome {
    let mut joined = Some(Outcome::Ready);
    for outcome in outcomes {
        if joined == Some(Outcome::Ready) {
            joined = outcome;
        }
    }
    joined
}

/// Removes all devices of an owner, in the reverse order of the kinds.
fn remove_all(context: &mut PlanContext<'_>, owner: Uuid, owner_kind: OwnerKind) -> PlannedOutcome {
    let PlanInputs { kinds, survey, .. } = context.inputs();
    let link_kinds = kinds.iter().rev().filter_map(|kind| kind.link_kind()).filter(|kind| kind.owner == owner_kind);
    let links: Vec<_> = link_kinds.flat_map(|kind| survey.links_of(owner, kind.info_kind)).collect();
    if links.is_empty() {
        return Some(Outcome::Removed);
    }
    let blocked: Vec<_> = links.into_iter().filter_map(|link| context.remove(link).err()).collect();
    (!blocked.is_empty()).then(|| Outcome::Failed(blocked.join("; ")))
}

/// Removes incomplete devices and, if all decisions are known, orphans.
fn remove_orphans(context: &mut PlanContext<'_>) {
    let PlanInputs { desired, survey, is_current, .. } = context.inputs();
    let mut links: Vec<_> = survey.incomplete().collect();
    if is_current {
        links.extend(survey.orphans(desired));
    }
    context.remove_extra(links);
}
