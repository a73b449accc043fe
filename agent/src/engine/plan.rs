//! The plan: steps that bring the observed to the desired state, and what is known of each network and NIC before any
//! of them is executed.
//!
//! A plan goes over the union of what is desired and what is owned, so that orphans are found. A device is ours if it
//! is of one of our kinds and carries our alias, or did when it was first seen ([`crate::model::observed`]). Nothing
//! else is ever in a step, except devices that were left behind while they were created, and what the kinds plan for
//! the whole node.

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::outcome::Outcome;
use serde::Serialize;
use uuid::Uuid;

use super::context::{Inputs, PlanContext};
use super::kind::{OwnerKind, Verdict};
use super::step::Step;
use crate::model::desired::{DesiredNetwork, Want};

/// Steps, and what is known of each network and NIC before they are executed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// In this order: node-wide steps, creations and repairs, removals that something waits for, other removals.
    pub steps: Vec<Step>,
    /// The networks without steps, and those that must wait.
    pub outcomes: BTreeMap<NetworkId, Outcome>,
    /// The NICs without steps, and those that must wait.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nics: BTreeMap<NicId, Outcome>,
    /// What prevents a network from working and is not ours to change.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub warnings: BTreeMap<NetworkId, Vec<String>>,
    /// Problems with devices that belong to no known network or NIC.
    pub notices: Vec<String>,
    /// Something is waited for that the kernel may not notify of.
    #[serde(rename = "recheck", skip_serializing_if = "std::ops::Not::not")]
    pub must_recheck: bool,
}

/// Plans everything.
pub fn plan(inputs: Inputs<'_>) -> Plan {
    make(inputs, None)
}

/// Plans these networks, and all NICs. The plan contains nothing about other networks or orphans.
pub fn plan_only(inputs: Inputs<'_>, only: &BTreeSet<NetworkId>) -> Plan {
    make(inputs, Some(only))
}

fn make(inputs: Inputs<'_>, only: Option<&BTreeSet<NetworkId>>) -> Plan {
    let Inputs { kinds, desired, .. } = inputs;
    let mut context = PlanContext::new(inputs);
    kinds.iter().for_each(|kind| kind.plan_node(&mut context));
    let mut networks: Vec<_> = match only {
        None => desired.networks.iter().map(|(id, network)| (*id, network)).collect(),
        Some(only) => only.iter().filter_map(|id| Some((*id, desired.networks.get(id)?))).collect(),
    };
    networks.sort_by_key(|(id, network)| (network.generation, *id));
    for (id, network) in networks {
        let verdict = plan_network(&mut context, id, network);
        context.set_network(id, verdict);
    }
    let mut nics: Vec<_> = desired.nics.iter().map(|(id, nic)| (*id, nic)).collect();
    nics.sort_by_key(|(id, nic)| (nic.generation, *id));
    for (id, nic) in nics {
        let verdict = match &nic.tap {
            None => remove_all(&mut context, id.uuid(), OwnerKind::Nic),
            Some(tap) => join(kinds.iter().map(|kind| kind.plan_nic(&mut context, id, tap))),
        };
        context.set_nic(id, verdict);
    }
    if only.is_none() {
        remove_orphans(&mut context);
    }
    context.into_plan()
}

fn plan_network(context: &mut PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> Verdict {
    match &network.want {
        Want::Unsupported(why) => Some(Outcome::Failed(why.clone())),
        Want::Nothing => {
            let verdict = remove_all(context, id.uuid(), OwnerKind::Network);
            let is_released = || context.kinds.iter().all(|kind| kind.is_released(context));
            verdict.filter(|outcome| *outcome != Outcome::Removed || is_released())
        }
        Want::Bridge(_) | Want::Overlay(_) | Want::Unmanaged(_) => {
            join(context.kinds.iter().map(|kind| kind.plan_network(context, id, network)))
        }
    }
}

/// Combines the verdicts of all kinds on a resource: returns the first that is not ready. All kinds are evaluated,
/// because evaluating one adds its steps.
fn join(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let mut joined = Some(Outcome::Ready);
    for verdict in verdicts {
        if joined == Some(Outcome::Ready) {
            joined = verdict;
        }
    }
    joined
}

/// Removes all devices of an owner, those that depend on others first.
fn remove_all(context: &mut PlanContext<'_>, owner: Uuid, owner_kind: OwnerKind) -> Verdict {
    let Inputs { kinds, survey, .. } = context.inputs();
    let links = kinds.iter().rev().filter_map(|kind| kind.links()).filter(|links| links.owner == owner_kind);
    let links: Vec<_> = links.flat_map(|links| survey.links_of(owner, links.kind)).collect();
    if links.is_empty() {
        return Some(Outcome::Removed);
    }
    let blocked: Vec<_> = links.into_iter().filter_map(|link| context.remove(link).err()).collect();
    (!blocked.is_empty()).then(|| Outcome::Failed(blocked.join("; ")))
}

/// Removes devices of ours that no known network or NIC has.
fn remove_orphans(context: &mut PlanContext<'_>) {
    let Inputs { desired, survey, is_current, .. } = context.inputs();
    let mut links: Vec<_> = survey.left_over().collect();
    if is_current {
        links.extend(survey.orphans(desired));
    }
    context.remove_extra(links);
}
