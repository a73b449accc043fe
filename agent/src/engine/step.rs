//! A step of a plan: a subject and an action. The action has all properties that the engine needs, so that the engine
//! does not match on actions.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use otherix_schemas::id::ClusterId;
use serde::ser::{Error, SerializeStruct};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::subject::Subject;
use crate::kernel::{Kernel, KernelError};
use crate::model::observed::Parts;

/// A change of the node, as data. [`fmt::Display`] describes it in the log.
pub trait StepAction: fmt::Debug + fmt::Display + Serialize + Send + Sync + 'static {
    /// The name of the device kind.
    fn kind(&self) -> &'static str;

    /// The name of the action, unique within its kind.
    fn name(&self) -> &'static str;

    fn subject(&self) -> Subject;

    /// The parts of the observed state to read again afterwards, because notifications do not contain all of them.
    fn invalidates(&self) -> Parts {
        Parts::NONE
    }

    /// Whether it removes a device. Removals come last in a plan, and a pass executes one.
    fn is_removal(&self) -> bool {
        false
    }

    /// Whether it takes less than about 0.5 ms, so that it can be executed on the main thread.
    fn is_quick(&self) -> bool {
        true
    }

    /// Whether it counts towards the limit of repairs of one subject, because another program may be undoing it.
    fn is_limited(&self) -> bool {
        true
    }

    /// The name of the device that it creates: it fails if another program takes that name first.
    fn creates(&self) -> Option<&str> {
        None
    }

    /// The interface index of the device that it changes: it fails if that is removed first.
    fn changes(&self) -> Option<u32> {
        None
    }

    /// Executes these in order, and returns the result of each. After a failure the others are still executed. A
    /// creation that fails leaves no device behind.
    fn execute(actions: &[&Self], kernel: &mut Kernel, cluster: ClusterId) -> Vec<Result<(), KernelError>>
    where
        Self: Sized;
}

/// [`StepAction`], without its type.
trait AnyAction: fmt::Debug + fmt::Display + Any + Send + Sync {
    fn properties(&self) -> ActionProperties;
    fn creates(&self) -> Option<&str>;
    fn to_json(&self) -> serde_json::Result<Value>;
    fn execute(&self, steps: &[Step], kernel: &mut Kernel, cluster: ClusterId) -> Vec<Result<(), KernelError>>;
}

/// The properties of a [`StepAction`].
#[derive(Clone, Copy, Debug)]
struct ActionProperties {
    kind: &'static str,
    name: &'static str,
    subject: Subject,
    invalidates: Parts,
    is_removal: bool,
    is_quick: bool,
    is_limited: bool,
    changes: Option<u32>,
}

impl<A: StepAction> AnyAction for A {
    fn properties(&self) -> ActionProperties {
        ActionProperties {
            kind: self.kind(),
            name: self.name(),
            subject: self.subject(),
            invalidates: self.invalidates(),
            is_removal: self.is_removal(),
            is_quick: self.is_quick(),
            is_limited: self.is_limited(),
            changes: self.changes(),
        }
    }

    fn creates(&self) -> Option<&str> {
        StepAction::creates(self)
    }

    fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    fn execute(&self, steps: &[Step], kernel: &mut Kernel, cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let actions: Vec<&A> = steps.iter().filter_map(Step::action).collect();
        A::execute(&actions, kernel, cluster)
    }
}

/// A step of a plan. Cloning is cheap.
#[derive(Clone)]
pub struct Step {
    properties: ActionProperties,
    action: Arc<dyn AnyAction>,
}

impl Step {
    pub fn new(action: impl StepAction) -> Self {
        Self { properties: action.properties(), action: Arc::new(action) }
    }

    pub fn subject(&self) -> Subject {
        self.properties.subject
    }

    pub fn invalidates(&self) -> Parts {
        self.properties.invalidates
    }

    pub fn is_removal(&self) -> bool {
        self.properties.is_removal
    }

    pub fn is_quick(&self) -> bool {
        self.properties.is_quick
    }

    pub fn is_limited(&self) -> bool {
        self.properties.is_limited
    }

    pub fn creates(&self) -> Option<&str> {
        self.action.creates()
    }

    pub fn changes(&self) -> Option<u32> {
        self.properties.changes
    }

    /// Returns the action, if it is of this type.
    pub fn action<A: StepAction>(&self) -> Option<&A> {
        let any: &dyn Any = self.action.as_ref();
        any.downcast_ref()
    }

    /// Whether both are of the same type, so that they can be executed together.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let [one, other]: [&dyn Any; 2] = [self.action.as_ref(), other.action.as_ref()];
        one.type_id() == other.type_id()
    }

    /// Executes steps that are all like this one.
    pub(super) fn execute_all(
        &self,
        steps: &[Self],
        kernel: &mut Kernel,
        cluster: ClusterId,
    ) -> Vec<Result<(), KernelError>> {
        self.action.execute(steps, kernel, cluster)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.action, f)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.action, f)
    }
}

/// `{"kind": "bridge", "subject": {"network": …}, "action": {"create": {…}}}`
impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ActionProperties { kind, name, subject, .. } = &self.properties;
        let action = self.action.to_json().map_err(S::Error::custom)?;
        let mut step = serializer.serialize_struct("Step", 3)?;
        step.serialize_field("kind", kind)?;
        step.serialize_field("subject", subject)?;
        step.serialize_field("action", &serde_json::Map::from_iter([((*name).to_owned(), action)]))?;
        step.end()
    }
}
