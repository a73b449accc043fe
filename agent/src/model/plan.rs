//! What to do about the difference between what must be and what is: steps as data, and what can be said of each network
//! before any of them is taken.
//!
//! Goes over the union of what is desired and what is owned, so that orphans are found. A device is ours if it is a bridge
//! that carries our alias, or carried it when it was first seen ([`Observed`]); nothing else is ever in a step, except
//! bridges that were left in the making. `ready` is said of a network only if the observation has all of it; so after the
//! steps the plan is made again from what is then observed.
//!
//! An unmanaged bridge has what it must have if there is a bridge of that name. Whether it is up, its MTU, its ports and its
//! settings are its operator's affair. It is in no step.

mod step;
mod survey;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;
use serde::Serialize;

pub use self::step::{Changes, Failures, Setting, Step};
use self::survey::{Holder, Survey};
use super::desired::{Desired, DesiredBridge, DesiredNetwork, Want};
use super::observed::{Link, Observed};
use super::owner::{is_temporary, temporary_name};

/// What to do, and what is known already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In this order: creations and repairs, removals that free a name, other removals.
    pub steps: Vec<Step>,
    /// Of the networks that no step is about, or that must wait.
    pub outcomes: BTreeMap<NetworkId, Outcome>,
    /// What goes wrong with devices that no known network has, and what a person should know beyond the outcomes.
    pub notices: Vec<String>,
    /// Something is waited for of whose coming the kernel may not tell.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recheck: bool,
}

/// Makes the plan. Unless the view is `current`, a device of ours whose network is not known may belong to one that is
/// not known yet, and stays.
pub fn plan(desired: &Desired, observed: &Observed, failures: &Failures, current: bool) -> Plan {
    let survey = Survey::new(desired.cluster, observed);
    let mut planner = Planner { desired, survey, failures, current, out: Out::default() };
    let mut networks: Vec<_> = desired.networks.iter().map(|(id, network)| (*id, network)).collect();
    networks.sort_by_key(|(id, network)| (network.generation, *id));
    for (id, network) in networks {
        planner.network(id, network);
    }
    planner.unclaimed();
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
    notices: Vec<String>,
    recheck: bool,
}

impl Out {
    fn into_plan(self) -> Plan {
        let Self { first, removals, urgent, claimed: _, outcomes, notices, recheck } = self;
        let (before, after): (Vec<_>, Vec<_>) = removals.into_iter().partition(|(index, _)| urgent.contains(index));
        let removals = before.into_iter().chain(after).map(|(index, name)| Step::Remove { index, name });
        Plan { steps: first.into_iter().chain(removals).collect(), outcomes, notices, recheck }
    }
}

struct Planner<'a> {
    desired: &'a Desired,
    survey: Survey<'a>,
    failures: &'a Failures,
    current: bool,
    out: Out,
}

impl Planner<'_> {
    fn network(&mut self, id: NetworkId, network: &DesiredNetwork) {
        let outcome = match &network.want {
            Want::Bridge(bridge) => self.bridge(id, bridge),
            Want::Unmanaged(bridge) => Some(self.unmanaged(bridge)),
            Want::Unsupported(what) => Some(Outcome::Failed(what.clone())),
            Want::Nothing => self.nothing(id),
        };
        self.out.outcomes.extend(outcome.map(|outcome| (id, outcome)));
    }

    fn bridge(&mut self, id: NetworkId, bridge: &DesiredBridge) -> Option<Outcome> {
        let (ours, extra) = self.survey.of_network(id, &bridge.name);
        for link in extra {
            let blocked = self.remove(link).err();
            self.out.notices.extend(blocked);
        }
        match ours {
            Some(link) => self.keep(id, bridge, link),
            None => self.create(id, bridge),
        }
    }

    /// What a bridge of ours that is there needs.
    fn keep(&mut self, id: NetworkId, bridge: &DesiredBridge, link: &Link) -> Option<Outcome> {
        let mut changes = Changes {
            name: (link.name != bridge.name).then(|| bridge.name.clone()),
            mtu: (link.mtu != bridge.mtu).then_some(bridge.mtu),
            up: !link.up,
            alias: !self.survey.is_labelled(link),
            release: link.master.is_some(),
            settings: Setting::changes(link.settings),
        };
        if changes == Changes::default() {
            return Some(Outcome::Ready);
        }
        if let Some(error) = self.failures.networks.get(&id) {
            return Some(Outcome::Failed(error.clone()));
        }
        let blocked = changes.name.is_some().then(|| self.rename(id, bridge, link, &mut changes)).flatten();
        if changes != Changes::default() {
            self.out.first.push(Step::Repair { network: id, index: link.index, changes });
        }
        blocked
    }

    /// What is in the way of giving a bridge its name back. If that is a bridge of ours that is to have another name itself,
    /// both get out of each other's way first.
    fn rename(&mut self, id: NetworkId, bridge: &DesiredBridge, link: &Link, changes: &mut Changes) -> Option<Outcome> {
        let holder = self.survey.named(&bridge.name)?;
        changes.name = None;
        if let Holder::Ours(_, other) = holder
            && let Some(DesiredNetwork { want: Want::Bridge(theirs), .. }) = self.desired.networks.get(&other)
            && theirs.name != bridge.name
        {
            changes.name = (!is_temporary(&link.name)).then(|| temporary_name(id));
            return Some(Outcome::Pending(text::exchanged(&bridge.name, &link.name)));
        }
        Some(match self.wait_for(holder, &bridge.name) {
            Outcome::Failed(why) => Outcome::Failed(text::renamed(&link.name, &why)),
            outcome @ (Outcome::Pending(_) | Outcome::Ready | Outcome::Removed) => outcome,
        })
    }

    /// What a bridge that is not there needs.
    fn create(&mut self, id: NetworkId, bridge: &DesiredBridge) -> Option<Outcome> {
        for name in [&bridge.name, &temporary_name(id)] {
            if let Some(holder) = self.survey.named(name) {
                return Some(self.wait_for(holder, name));
            }
        }
        if let Some(error) = self.failures.networks.get(&id) {
            return Some(Outcome::Failed(error.clone()));
        }
        if !self.out.claimed.insert(bridge.name.clone()) {
            return Some(Outcome::Failed(format!("another network has the bridge `{}`", bridge.name)));
        }
        self.out.first.push(Step::Create { network: id, bridge: bridge.clone() });
        None
    }

    /// What is to be said of a network whose bridge's name is taken.
    fn wait_for(&mut self, holder: Holder<'_>, name: &str) -> Outcome {
        let (link, owner) = match holder {
            Holder::Foreign(link) => return Outcome::Failed(text::squatter(link)),
            Holder::Alternative(link) => {
                self.out.recheck |= !link.up;
                return Outcome::Failed(text::alternative(name, link));
            }
            Holder::LeftOver(link) => (link, None),
            Holder::Ours(link, owner) => (link, Some(owner)),
        };
        match owner.map(|id| (id, self.desired.networks.get(&id).map(|network| &network.want))) {
            Some((id, Some(Want::Bridge(_) | Want::Unsupported(_)))) => {
                return Outcome::Failed(format!("`{name}` is the bridge of network `{id}`"));
            }
            Some((_, Some(Want::Unmanaged(_)))) => return Outcome::Failed(text::made_by_nobody(link)),
            Some((id, None)) if !self.current => {
                return Outcome::Pending(format!("waiting for removal of `{name}`: is network `{id}` still wanted?"));
            }
            Some((_, None | Some(Want::Nothing))) | None => {}
        }
        match self.removable(link) {
            Ok(()) => {
                self.out.urgent.insert(link.index);
                Outcome::Pending(format!("waiting for removal of `{name}`"))
            }
            Err(blocked) => Outcome::Pending(format!("waiting for removal of `{name}`: {blocked}")),
        }
    }

    /// How an unmanaged bridge fares.
    fn unmanaged(&mut self, bridge: &DesiredBridge) -> Outcome {
        let DesiredBridge { name, mtu } = bridge;
        match self.survey.named(name) {
            None => Outcome::Failed(text::missing(name)),
            Some(Holder::Foreign(link)) if link.is_bridge() => {
                self.out.notices.extend((link.mtu < *mtu).then(|| text::narrow(link, *mtu)));
                Outcome::Ready
            }
            Some(Holder::Foreign(link)) => Outcome::Failed(text::no_bridge(link)),
            Some(holder @ (Holder::Ours(..) | Holder::LeftOver(_) | Holder::Alternative(_))) => {
                self.wait_for(holder, name)
            }
        }
    }

    /// What a deleted network needs.
    fn nothing(&mut self, id: NetworkId) -> Option<Outcome> {
        let links = self.survey.all_of_network(id);
        if links.is_empty() {
            return Some(Outcome::Removed);
        }
        let mut blocked = Vec::new();
        for link in links {
            blocked.extend(self.remove(link).err());
        }
        (!blocked.is_empty()).then(|| Outcome::Failed(blocked.join("; ")))
    }

    /// Devices of ours that no known network has.
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
