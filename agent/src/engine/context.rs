//! What a plan is made from, and what has been planned so far.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::rc::Rc;

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::outcome::Outcome;

use super::kind::{Claim, Kinds};
use super::plan::Plan;
use super::remove::RemoveLink;
use super::step::{Action, Step};
use super::subject::{Failures, Subject};
use super::survey::{Holder, Survey};
use super::text;
use crate::model::desired::Desired;
use crate::model::link::Link;
use crate::model::observed::Observed;

/// What a plan is made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub kinds: Kinds,
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub survey: Survey<'a>,
    pub failures: &'a Failures,
    /// Whether all decisions are known. If not, a device of ours with an unknown owner stays, because the decision
    /// about its owner may still be to come.
    pub is_current: bool,
}

impl<'a> Inputs<'a> {
    /// Returns the inputs of a plan for these kinds.
    pub fn new(kinds: Kinds, desired: &'a Desired, observed: &'a Observed, failures: &'a Failures) -> Self {
        let survey = Survey::new(kinds, desired.cluster, observed);
        Self { kinds, desired, observed, survey, failures, is_current: false }
    }

    /// Sets whether all decisions are known.
    #[must_use]
    pub fn current(self, is_current: bool) -> Self {
        Self { is_current, ..self }
    }
}

/// A value that several kinds or networks need, computed once in a plan.
pub trait Shared: 'static {
    fn compute(inputs: &Inputs<'_>) -> Self;
}

/// A plan in the making, which the kinds add to.
pub struct PlanContext<'a> {
    inputs: Inputs<'a>,
    shared: RefCell<BTreeMap<TypeId, Rc<dyn Any>>>,
    steps: Vec<Step>,
    removals: Vec<(u32, Step)>,
    /// Indexes of devices whose removal something waits for.
    urgent: BTreeSet<u32>,
    /// Names of devices to be created.
    claimed: BTreeSet<String>,
    outcomes: BTreeMap<NetworkId, Outcome>,
    nics: BTreeMap<NicId, Outcome>,
    warnings: BTreeMap<NetworkId, Vec<String>>,
    notices: Vec<String>,
    must_recheck: bool,
}

impl<'a> Deref for PlanContext<'a> {
    type Target = Inputs<'a>;
    fn deref(&self) -> &Inputs<'a> {
        &self.inputs
    }
}

impl<'a> PlanContext<'a> {
    pub(super) fn new(inputs: Inputs<'a>) -> Self {
        Self {
            inputs,
            shared: RefCell::default(),
            steps: Vec::new(),
            removals: Vec::new(),
            urgent: BTreeSet::new(),
            claimed: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            nics: BTreeMap::new(),
            warnings: BTreeMap::new(),
            notices: Vec::new(),
            must_recheck: false,
        }
    }

    /// Returns a copy of the references that the plan is made from, to read them while the plan is changed.
    pub fn inputs(&self) -> Inputs<'a> {
        self.inputs
    }

    /// Returns the shared value of this type, computing it at the first call.
    pub fn shared<T: Shared>(&self) -> Rc<T> {
        let known = self.shared.borrow().get(&TypeId::of::<T>()).cloned();
        if let Some(value) = known.and_then(|value| value.downcast().ok()) {
            return value;
        }
        let value = Rc::new(T::compute(&self.inputs));
        self.shared.borrow_mut().insert(TypeId::of::<T>(), Rc::<T>::clone(&value));
        value
    }

    /// Adds a step.
    pub fn add(&mut self, action: impl Action) {
        self.steps.push(Step::new(action));
    }

    /// The error of a subject that is not to be tried for now, as its outcome.
    pub fn failure(&self, subject: Subject) -> Option<Outcome> {
        self.failures.get(subject).map(|error| Outcome::Failed(error.clone()))
    }

    /// Claims the name of a device to be created. Returns whether it is the first claim.
    pub fn claim_name(&mut self, name: &str) -> bool {
        self.claimed.insert(name.to_owned())
    }

    /// Adds a warning: something prevents the network from working that is not ours to change.
    pub fn warn(&mut self, network: NetworkId, text: String) {
        self.warnings.entry(network).or_default().push(text);
    }

    /// Adds a problem that concerns no known network or NIC.
    pub fn notice(&mut self, text: String) {
        self.notices.push(text);
    }

    /// The outcome that the plan has for a network already.
    pub fn outcome(&self, network: NetworkId) -> Option<&Outcome> {
        self.outcomes.get(&network)
    }

    pub(super) fn set_network(&mut self, network: NetworkId, outcome: Option<Outcome>) {
        self.outcomes.extend(outcome.map(|outcome| (network, outcome)));
    }

    pub(super) fn set_nic(&mut self, nic: NicId, outcome: Option<Outcome>) {
        self.nics.extend(outcome.map(|outcome| (nic, outcome)));
    }

    /// Returns the outcome of a network or NIC whose device must get a name that another device has.
    pub fn wait_for_name(&mut self, holder: Holder<'_>, name: &str) -> Outcome {
        let link = match holder {
            Holder::Foreign(link) => return Outcome::Failed(text::name_conflict(link)),
            Holder::Alternative(link) => {
                self.must_recheck |= !link.up;
                return Outcome::Failed(text::altname_conflict(name, link));
            }
            Holder::LeftOver(link) => link,
            Holder::Ours(owned) => match owned.claim(self.desired) {
                Claim::Required => {
                    return Outcome::Failed(text::belongs_to(name, owned.kind.label(), owned.resource()));
                }
                Claim::Conflict(text) => return Outcome::Failed(text),
                Claim::Unknown if !self.is_current => {
                    return Outcome::Pending(text::waiting_for_owner(name, owned.resource()));
                }
                Claim::Obsolete | Claim::Unknown => owned.link,
            },
        };
        match self.removable(link) {
            Ok(()) => {
                self.urgent.insert(link.index);
                Outcome::Pending(text::waiting_for_removal(name))
            }
            Err(blocked) => Outcome::Pending(format!("{}: {blocked}", text::waiting_for_removal(name))),
        }
    }

    /// Returns the outcome of a device of ours that cannot be renamed back, because another has its name.
    pub fn wait_to_rename(&mut self, holder: Holder<'_>, name: &str, what: &str, current: &str) -> Outcome {
        match self.wait_for_name(holder, name) {
            Outcome::Failed(why) => Outcome::Failed(text::renamed(what, current, &why)),
            outcome @ (Outcome::Pending(_) | Outcome::Ready | Outcome::Removed) => outcome,
        }
    }

    /// Removes a device. The error says what prevents that.
    pub fn remove(&mut self, link: &Link) -> Result<(), String> {
        self.removable(link)?;
        self.removals.push((link.index, Step::new(RemoveLink::of(&self.survey, link))));
        Ok(())
    }

    /// Removes a device, because it has to be replaced or must not be there. Returns the outcome of its network.
    pub fn remove_first(&mut self, link: &Link, why: String) -> Outcome {
        match self.remove(link) {
            Ok(()) => {
                self.urgent.insert(link.index);
                Outcome::Pending(why)
            }
            Err(blocked) => Outcome::Failed(blocked),
        }
    }

    /// Removes devices that an owner has in addition to the one it requires.
    pub fn remove_extra(&mut self, links: Vec<&Link>) {
        for link in links {
            let blocked = self.remove(link).err();
            self.notices.extend(blocked);
        }
    }

    fn removable(&self, link: &Link) -> Result<(), String> {
        if let Some(port) = self.survey.foreign_port(link) {
            return Err(text::foreign_port(link, port));
        }
        self.failures.get(Subject::Device(link.index)).map_or(Ok(()), |error| Err(error.clone()))
    }

    pub(super) fn into_plan(self) -> Plan {
        let Self { inputs: _, shared: _, steps, removals, urgent, claimed: _, .. } = self;
        let (before, after): (Vec<_>, Vec<_>) = removals.into_iter().partition(|(index, _)| urgent.contains(index));
        let removals = before.into_iter().chain(after).map(|(_, step)| step);
        let Self { outcomes, nics, warnings, notices, must_recheck, .. } = self;
        Plan { steps: steps.into_iter().chain(removals).collect(), outcomes, nics, warnings, notices, must_recheck }
    }
}
