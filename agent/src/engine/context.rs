//! The inputs of a plan, and its content so far.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::rc::Rc;

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::outcome::Outcome;

use super::kind::{Kinds, OwnerClaim};
use super::memo::Memos;
use super::plan::Plan;
use super::remove::RemoveLink;
use super::step::{Step, StepAction};
use super::subject::{Failures, Subject};
use super::survey::{DeviceSurvey, NameHolder};
use super::text;
use crate::model::desired::Desired;
use crate::model::link::Link;
use crate::model::observed::Observed;

/// The inputs of a plan.
#[derive(Clone, Copy)]
pub struct PlanInputs<'a> {
    pub kinds: Kinds,
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub survey: DeviceSurvey<'a>,
    pub failures: &'a Failures,
    /// Whether all decisions are known. If not, a device of ours with an unknown owner stays, because a later decision
    /// may be about its owner.
    pub is_current: bool,
}

impl<'a> PlanInputs<'a> {
    /// Returns inputs with `is_current` unset.
    pub fn new(kinds: Kinds, desired: &'a Desired, observed: &'a Observed, failures: &'a Failures) -> Self {
        let survey = DeviceSurvey::new(kinds, desired.cluster, observed);
        Self { kinds, desired, observed, survey, failures, is_current: false }
    }

    /// Sets whether all decisions are known.
    #[must_use]
    pub fn current(self, is_current: bool) -> Self {
        Self { is_current, ..self }
    }
}

/// A value that several kinds or networks need, computed once in a plan.
pub trait SharedValue: 'static {
    fn compute(inputs: &PlanInputs<'_>) -> Self;
}

/// A plan that is being made; the kinds add to it.
pub struct PlanContext<'a> {
    inputs: PlanInputs<'a>,
    memos: &'a mut Memos,
    shared: RefCell<BTreeMap<TypeId, Rc<dyn Any>>>,
    steps: Vec<Step>,
    /// With the interface index of the device.
    removals: Vec<(u32, Step)>,
    /// Interface indexes of devices whose removal a resource waits for.
    urgent: BTreeSet<u32>,
    /// Names of devices to be created.
    claimed: BTreeSet<String>,
    outcomes: BTreeMap<NetworkId, Outcome>,
    nics: BTreeMap<NicId, Outcome>,
    warnings: BTreeMap<NetworkId, Vec<String>>,
    withdrawals: BTreeMap<NetworkId, String>,
    notices: Vec<String>,
    must_recheck: bool,
}

impl<'a> Deref for PlanContext<'a> {
    type Target = PlanInputs<'a>;
    fn deref(&self) -> &PlanInputs<'a> {
        &self.inputs
    }
}

impl<'a> PlanContext<'a> {
    pub(super) fn new(inputs: PlanInputs<'a>, memos: &'a mut Memos) -> Self {
        Self {
            inputs,
            memos,
            shared: RefCell::default(),
            steps: Vec::new(),
            removals: Vec::new(),
            urgent: BTreeSet::new(),
            claimed: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            nics: BTreeMap::new(),
            warnings: BTreeMap::new(),
            withdrawals: BTreeMap::new(),
            notices: Vec::new(),
            must_recheck: false,
        }
    }

    /// Returns the inputs, which can be read while the context is changed.
    pub fn inputs(&self) -> PlanInputs<'a> {
        self.inputs
    }

    /// Returns the shared value of this type, computing it at the first call.
    pub fn shared<T: SharedValue>(&self) -> Rc<T> {
        let known = self.shared.borrow().get(&TypeId::of::<T>()).cloned();
        if let Some(value) = known.and_then(|value| value.downcast().ok()) {
            return value;
        }
        let value = Rc::new(T::compute(&self.inputs));
        self.shared.borrow_mut().insert(TypeId::of::<T>(), Rc::<T>::clone(&value));
        value
    }

    /// Uses what earlier plans remembered as this type. The plan must not depend on whether they did.
    pub fn remembered<T: Default + Send + 'static, R>(&mut self, compute: impl FnOnce(&mut T) -> R) -> R {
        self.memos.with(compute)
    }

    /// Adds a step.
    pub fn add(&mut self, action: impl StepAction) {
        self.steps.push(Step::new(action));
    }

    /// Returns the outcome of a subject that is not to be tried for now.
    pub fn failure(&self, subject: Subject) -> Option<Outcome> {
        self.failures.get(subject).map(|error| Outcome::Failed(error.clone()))
    }

    /// Claims the name of a device to be created. Returns whether it is the first claim.
    pub fn claim_name(&mut self, name: &str) -> bool {
        self.claimed.insert(name.to_owned())
    }

    /// Adds a warning about what prevents a network from working and is not ours to change.
    pub fn warn(&mut self, network: NetworkId, text: String) {
        self.warnings.entry(network).or_default().push(text);
    }

    /// Withdraws a network from this node: with it the node cannot reach what it must, as the text says. It is not to
    /// be created again until it is updated or an operator releases it.
    pub fn withdraw(&mut self, network: NetworkId, text: String) {
        self.withdrawals.insert(network, text);
    }

    /// Adds a problem that concerns no known network or NIC.
    pub fn notice(&mut self, text: String) {
        self.notices.push(text);
    }

    /// Returns the outcome that the plan already has for a network.
    pub fn outcome(&self, network: NetworkId) -> Option<&Outcome> {
        self.outcomes.get(&network)
    }

    pub(super) fn set_network(&mut self, network: NetworkId, outcome: Option<Outcome>) {
        self.outcomes.extend(outcome.map(|outcome| (network, outcome)));
    }

    pub(super) fn set_nic(&mut self, nic: NicId, outcome: Option<Outcome>) {
        self.nics.extend(outcome.map(|outcome| (nic, outcome)));
    }

    /// Returns the outcome of a network or NIC whose device must get a name that another device has. Marks the removal
    /// of that device as urgent, if it is to be removed.
    pub fn wait_for_name(&mut self, holder: NameHolder<'_>, name: &str) -> Outcome {
        let link = match holder {
            NameHolder::Foreign(link) => return Outcome::Failed(text::name_conflict(link)),
            NameHolder::Alternative(link) => {
                self.must_recheck |= !link.up;
                return Outcome::Failed(text::altname_conflict(name, link));
            }
            NameHolder::Incomplete(link) => link,
            NameHolder::Ours(owned) => match owned.claim(self.desired) {
                OwnerClaim::Required => {
                    return Outcome::Failed(text::belongs_to(name, owned.kind.label(), owned.resource()));
                }
                OwnerClaim::Conflict(text) => return Outcome::Failed(text),
                OwnerClaim::Unknown if !self.is_current => {
                    return Outcome::Pending(text::waiting_for_owner(name, owned.resource()));
                }
                OwnerClaim::Obsolete | OwnerClaim::Unknown => owned.link,
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

    /// Returns the outcome of a resource whose device was renamed to `current` and cannot be renamed back, because
    /// another device has its name.
    pub fn wait_to_rename(&mut self, holder: NameHolder<'_>, name: &str, what: &str, current: &str) -> Outcome {
        match self.wait_for_name(holder, name) {
            Outcome::Failed(why) => Outcome::Failed(text::renamed(what, current, &why)),
            outcome @ (Outcome::Pending(_) | Outcome::Ready | Outcome::Removed) => outcome,
        }
    }

    /// Adds a step that removes a device.
    ///
    /// # Errors
    /// What prevents the removal.
    pub fn remove(&mut self, link: &Link) -> Result<(), String> {
        self.removable(link)?;
        self.removals.push((link.index, Step::new(RemoveLink::of(&self.survey, link))));
        Ok(())
    }

    /// Removes a device that must be replaced or must not exist, before other removals. Returns the outcome of its
    /// network.
    pub fn remove_first(&mut self, link: &Link, why: String) -> Outcome {
        match self.remove(link) {
            Ok(()) => {
                self.urgent.insert(link.index);
                Outcome::Pending(why)
            }
            Err(blocked) => Outcome::Failed(blocked),
        }
    }

    /// Removes devices that are not required. What prevents that becomes a notice.
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
        let Self { inputs: _, memos: _, shared: _, steps, removals, urgent, claimed: _, .. } = self;
        let (before, after): (Vec<_>, Vec<_>) = removals.into_iter().partition(|(index, _)| urgent.contains(index));
        let removals = before.into_iter().chain(after).map(|(_, step)| step);
        let Self { outcomes, nics, warnings, withdrawals, notices, must_recheck, .. } = self;
        let steps = steps.into_iter().chain(removals).collect();
        Plan { steps, outcomes, nics, warnings, withdrawals, notices, must_recheck }
    }
}
