//! What to do about the difference between what must be and what is: steps as data, and what can be said of each network
//! before any of them is taken.
//!
//! Goes over the union of what is desired and what is owned, so that orphans are found. A device is ours if it is a bridge
//! and carries our alias; nothing else is ever in a step, except bridges that were left in the making. `ready` is said of
//! a network only if the observation has all of it; so after the steps the plan is made again from what is then observed.

mod survey;

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;
use serde::{Deserialize, Serialize};

use self::survey::{Holder, Survey};
use super::desired::{Desired, DesiredBridge, DesiredNetwork, Want};
use super::observed::{Link, Observed};
use super::owner::temporary_name;

/// What to do, and what is known already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In this order: creations and repairs, removals that free a name, other removals.
    pub steps: Vec<Step>,
    /// Of the networks that no step is about, or that must wait.
    pub outcomes: BTreeMap<NetworkId, Outcome>,
    /// What goes wrong with devices that no known network has.
    pub notices: Vec<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Make a network's bridge.
    Create {
        /// The network.
        network: NetworkId,
        /// The bridge.
        bridge: DesiredBridge,
    },
    /// Change a bridge of ours back to what it must be.
    Repair {
        /// The network.
        network: NetworkId,
        /// The bridge.
        index: u32,
        /// What to change.
        changes: Changes,
    },
    /// Remove a bridge of ours.
    Remove {
        /// The bridge.
        index: u32,
        /// Its name.
        name: String,
    },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Create { network, bridge } => {
                let DesiredBridge { name, mtu } = bridge;
                write!(f, "create bridge {name} with mtu {mtu} for network {network}")
            }
            Self::Repair { network, index, changes } => {
                let Changes { name, mtu, up } = changes;
                write!(f, "repair bridge {index} of network {network}:")?;
                name.iter().try_for_each(|name| write!(f, " name {name}"))?;
                mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))?;
                f.write_str(if *up { " up" } else { "" })
            }
            Self::Remove { index, name } => write!(f, "remove bridge {name} ({index})"),
        }
    }
}

/// What differs from what must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The name it must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The MTU it must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// It is down.
    #[serde(default)]
    pub up: bool,
}

/// Steps that the kernel refused, and are not to be tried again for now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Creations and repairs.
    #[serde(default)]
    pub networks: BTreeMap<NetworkId, String>,
    /// Removals, by the index of the device.
    #[serde(default)]
    pub devices: BTreeMap<u32, String>,
}

impl Failures {
    /// Notes that a step was refused.
    pub fn add(&mut self, step: &Step, error: String) {
        match step {
            Step::Create { network, .. } | Step::Repair { network, .. } => self.networks.insert(*network, error),
            Step::Remove { index, .. } => self.devices.insert(*index, error),
        };
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.devices.is_empty()
    }
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
}

impl Out {
    fn into_plan(self) -> Plan {
        let Self { first, removals, urgent, claimed: _, outcomes, notices } = self;
        let (before, after): (Vec<_>, Vec<_>) = removals.into_iter().partition(|(index, _)| urgent.contains(index));
        let removals = before.into_iter().chain(after).map(|(index, name)| Step::Remove { index, name });
        Plan { steps: first.into_iter().chain(removals).collect(), outcomes, notices }
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
        let changes = Changes {
            name: (link.name != bridge.name).then(|| bridge.name.clone()),
            mtu: (link.mtu != bridge.mtu).then_some(bridge.mtu),
            up: !link.up,
        };
        if changes == Changes::default() {
            return Some(Outcome::Ready);
        }
        if let Some(error) = self.failures.networks.get(&id) {
            return Some(Outcome::Failed(error.clone()));
        }
        if changes.name.is_some() && self.survey.named(&bridge.name).is_some() {
            let name = &link.name;
            return Some(Outcome::Failed(format!(
                "the network's bridge was renamed to `{name}`, and another device is called `{}` now: remove or rename it",
                bridge.name
            )));
        }
        self.out.first.push(Step::Repair { network: id, index: link.index, changes });
        None
    }

    /// What a bridge that is not there needs.
    fn create(&mut self, id: NetworkId, bridge: &DesiredBridge) -> Option<Outcome> {
        let temporary = temporary_name(id);
        if let Some(holder) = self.survey.named(&bridge.name).or_else(|| self.survey.named(&temporary)) {
            return Some(self.wait_for(holder));
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
    fn wait_for(&mut self, holder: Holder<'_>) -> Outcome {
        let (link, owner) = match holder {
            Holder::Foreign(link) => return Outcome::Failed(squatter(link)),
            Holder::LeftOver(link) => (link, None),
            Holder::Ours(link, owner) => (link, Some(owner)),
        };
        let name = &link.name;
        match owner.map(|id| (id, self.desired.networks.get(&id))) {
            Some((id, Some(DesiredNetwork { want: Want::Bridge(_) | Want::Unsupported(_), .. }))) => {
                return Outcome::Failed(format!("`{name}` is the bridge of network `{id}`"));
            }
            Some((id, None)) if !self.current => {
                return Outcome::Pending(format!("waiting for removal of `{name}`: is network `{id}` still wanted?"));
            }
            Some((_, None | Some(DesiredNetwork { want: Want::Nothing, .. }))) | None => {}
        }
        match self.removable(link) {
            Ok(()) => {
                self.out.urgent.insert(link.index);
                Outcome::Pending(format!("waiting for removal of `{name}`"))
            }
            Err(blocked) => Outcome::Pending(format!("waiting for removal of `{name}`: {blocked}")),
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
            return Err(format!(
                "the bridge `{}` has the port `{}`, which otherix did not make: take it off the bridge",
                link.name, port.name
            ));
        }
        self.failures.devices.get(&link.index).map_or(Ok(()), |error| Err(error.clone()))
    }
}

fn squatter(link: &Link) -> String {
    let Link { name, kind, alias, .. } = link;
    let what = match (kind.as_str(), alias) {
        ("", _) => "a device".to_owned(),
        (kind, None) => format!("a device of kind `{kind}`"),
        (kind, Some(alias)) => format!("a device of kind `{kind}` with the alias `{alias}`"),
    };
    format!("`{name}` is already there, {what} that otherix did not make for this cluster: remove or rename it")
}
