//! What to do about the difference between what must be and what is: steps as data, and what can be said of each network
//! and NIC before any of them is taken.
//!
//! Goes over the union of what is desired and what is owned, so that orphans are found. A device is ours if it is a bridge,
//! VTEP or tap that carries our alias, or carried it when it was first seen ([`Observed`]); nothing else is ever in a step, except
//! devices that were left in the making, our table of the packet filter, and the forwarding of uplinks. `ready` is said only if
//! the observation has all of it; so after the steps the plan is made again from what is then observed.
//!
//! - `bridge`: managed and unmanaged bridges
//! - `nat`: the packet filter, and the way out of a network
//! - `overlay`: what leads to other nodes
//! - `tap`: NICs
//! - `survey`: whose a device is

mod bridge;
mod nat;
mod overlay;
mod step;
mod survey;
mod tap;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::outcome::Outcome;
use serde::Serialize;

use self::nat::Nat;
pub use self::step::{Changes, Failures, Forwarding, OnlyVlan, PortChanges, Setting, Step};
use self::survey::{Holder, Survey};
use super::desired::{Desired, DesiredNetwork, Want};
use super::observed::{Link, Observed};

/// What to do, and what is known already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In this order: the packet filter, creations and repairs, removals that free a name, other removals.
    pub steps: Vec<Step>,
    /// Of the networks that no step is about, or that must wait.
    pub outcomes: BTreeMap<NetworkId, Outcome>,
    /// Of the NICs that no step is about, or that must wait.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nics: BTreeMap<NicId, Outcome>,
    /// What works against a network without being ours to change.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub warnings: BTreeMap<NetworkId, Vec<String>>,
    /// What goes wrong with devices that no known network has.
    pub notices: Vec<String>,
    /// Something is waited for of whose coming the kernel may not tell.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recheck: bool,
}

/// Makes the plan. Unless the view is `current`, a device of ours whose network or NIC is not known may belong to one that is
/// not known yet, and stays.
pub fn plan(desired: &Desired, observed: &Observed, failures: &Failures, current: bool) -> Plan {
    make(desired, observed, failures, (current, None))
}

/// Makes the plan for these networks, and for all NICs. Nothing is said of the others, nor of what no known network or NIC has.
pub fn plan_only(
    desired: &Desired,
    observed: &Observed,
    failures: &Failures,
    current: bool,
    only: &BTreeSet<NetworkId>,
) -> Plan {
    make(desired, observed, failures, (current, Some(only)))
}

fn make(
    desired: &Desired,
    observed: &Observed,
    failures: &Failures,
    (current, only): (bool, Option<&BTreeSet<NetworkId>>),
) -> Plan {
    let survey = Survey::new(desired.cluster, observed);
    let nat = Nat::new(desired, &survey, failures);
    let mut planner = Planner { desired, observed, survey, failures, current, nat, out: Out::default() };
    planner.out.first.extend(planner.nat.steps());
    let mut networks: Vec<_> = match only {
        None => desired.networks.iter().map(|(id, network)| (*id, network)).collect(),
        Some(only) => only.iter().filter_map(|id| Some((*id, desired.networks.get(id)?))).collect(),
    };
    networks.sort_by_key(|(id, network)| (network.generation, *id));
    for (id, network) in networks {
        planner.network(id, network);
    }
    let mut nics: Vec<_> = desired.nics.iter().map(|(id, nic)| (*id, nic)).collect();
    nics.sort_by_key(|(id, nic)| (nic.generation, *id));
    for (id, nic) in nics {
        planner.nic(id, nic);
    }
    if only.is_none() {
        planner.unclaimed();
    }
    planner.out.into_plan()
}

#[derive(Default)]
struct Out {
    first: Vec<Step>,
    removals: Vec<(u32, String)>,
    /// Removals that somebody waits for.
    urgent: BTreeSet<u32>,
    claimed: BTreeSet<String>,
    outcomes: BTreeMap<NetworkId, Outcome>,
    nics: BTreeMap<NicId, Outcome>,
    warnings: BTreeMap<NetworkId, Vec<String>>,
    notices: Vec<String>,
    recheck: bool,
}

impl Out {
    fn into_plan(self) -> Plan {
        let Self { first, removals, urgent, claimed: _, outcomes, nics, warnings, notices, recheck } = self;
        let (before, after): (Vec<_>, Vec<_>) = removals.into_iter().partition(|(index, _)| urgent.contains(index));
        let removals = before.into_iter().chain(after).map(|(index, name)| Step::Remove { index, name });
        Plan { steps: first.into_iter().chain(removals).collect(), outcomes, nics, warnings, notices, recheck }
    }
}

struct Planner<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    survey: Survey<'a>,
    failures: &'a Failures,
    current: bool,
    nat: Nat,
    out: Out,
}

impl Planner<'_> {
    fn network(&mut self, id: NetworkId, network: &DesiredNetwork) {
        let outcome = match &network.want {
            Want::Bridge(bridge) => self.bridge(id, bridge),
            Want::Overlay(overlay) => self.overlay(id, overlay),
            Want::Unmanaged(bridge) => Some(self.unmanaged(id, bridge)),
            Want::Unsupported(what) => Some(Outcome::Failed(what.clone())),
            Want::Nothing => self.nothing(id),
        };
        self.out.outcomes.extend(outcome.map(|outcome| (id, outcome)));
    }

    /// What is to be said of a network or NIC whose device's name is taken.
    fn wait_for(&mut self, holder: Holder<'_>, name: &str) -> Outcome {
        let link = match holder {
            Holder::Foreign(link) => return Outcome::Failed(text::squatter(link)),
            Holder::Alternative(link) => {
                self.out.recheck |= !link.up;
                return Outcome::Failed(text::alternative(name, link));
            }
            Holder::LeftOver(link) => link,
            Holder::OurTap(link, nic) => match self.desired.nics.get(&nic).map(|nic| &nic.tap) {
                Some(Some(_)) => return Outcome::Failed(format!("`{name}` is the tap of NIC `{nic}`")),
                None if !self.current => {
                    return Outcome::Pending(format!("waiting for removal of `{name}`: is NIC `{nic}` still wanted?"));
                }
                Some(None) | None => link,
            },
            Holder::OurVtep(link, id) => match self.desired.networks.get(&id).map(|network| &network.want) {
                Some(Want::Overlay(_) | Want::Unsupported(_)) => {
                    return Outcome::Failed(format!("`{name}` is the VTEP of network `{id}`"));
                }
                None if !self.current => {
                    return Outcome::Pending(format!(
                        "waiting for removal of `{name}`: is network `{id}` still wanted?"
                    ));
                }
                Some(Want::Bridge(_) | Want::Unmanaged(_) | Want::Nothing) | None => link,
            },
            Holder::Ours(link, id) => match self.desired.networks.get(&id).map(|network| &network.want) {
                Some(Want::Bridge(_) | Want::Overlay(_) | Want::Unsupported(_)) => {
                    return Outcome::Failed(format!("`{name}` is the bridge of network `{id}`"));
                }
                Some(Want::Unmanaged(_)) => return Outcome::Failed(text::made_by_nobody(link)),
                None if !self.current => {
                    return Outcome::Pending(format!(
                        "waiting for removal of `{name}`: is network `{id}` still wanted?"
                    ));
                }
                Some(Want::Nothing) | None => link,
            },
        };
        match self.removable(link) {
            Ok(()) => {
                self.out.urgent.insert(link.index);
                Outcome::Pending(format!("waiting for removal of `{name}`"))
            }
            Err(blocked) => Outcome::Pending(format!("waiting for removal of `{name}`: {blocked}")),
        }
    }

    /// Devices of ours that no known network or NIC has.
    fn unclaimed(&mut self) {
        let mut links = self.survey.left_over();
        if self.current {
            links.extend(self.survey.unknown_to(self.desired));
        }
        for link in links {
            let blocked = self.remove(link).err();
            self.out.notices.extend(blocked);
        }
    }

    /// Removes all of these; says what is in the way of some.
    fn remove_all(&mut self, links: Vec<&Link>) -> Option<Outcome> {
        if links.is_empty() {
            return Some(Outcome::Removed);
        }
        let blocked: Vec<_> = links.into_iter().filter_map(|link| self.remove(link).err()).collect();
        (!blocked.is_empty()).then(|| Outcome::Failed(blocked.join("; ")))
    }

    fn remove(&mut self, link: &Link) -> Result<(), String> {
        self.removable(link)?;
        self.out.removals.push((link.index, link.name.clone()));
        Ok(())
    }

    fn removable(&self, link: &Link) -> Result<(), String> {
        if let Some(port) = self.survey.foreign_port(link) {
            return Err(text::foreign_port(link, port));
        }
        self.failures.devices.get(&link.index).map_or(Ok(()), |error| Err(error.clone()))
    }
}
