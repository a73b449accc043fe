//! The reconciliation engine: it knows how to plan, execute, observe and retry, but no kind of device. The kinds are
//! given to it as a list ([`crate::device::KINDS`]); what it must know of a step, the step's action says itself.
//!
//! - [`kind`]: what a kind of device provides
//! - [`step`]: a step, which is a subject and an action; [`subject`]: subjects, and those not to be tried for now
//! - [`plan`]: the plan for the difference between desired and observed state; pure, as are `context`, `survey` and
//!   `text`
//! - [`execute`]: executes steps on the kernel; [`remove`]: the removal of a link, the action that all kinds share
//! - [`reconciler`]: the passes; `notifications`, `cache`, [`retry`]: its parts

mod cache;
pub mod context;
pub mod execute;
pub mod kind;
mod notifications;
pub mod plan;
pub mod reconciler;
pub mod remove;
pub mod retry;
pub mod step;
pub mod subject;
pub mod survey;
pub(crate) mod text;

pub use self::context::{Inputs, PlanContext};
pub use self::execute::execute;
pub use self::kind::{Claim, DeviceKind, Interest, Kinds};
pub use self::plan::{Plan, plan, plan_only};
pub use self::reconciler::{Pass, Reconciler};
pub use self::step::{Action, Step};
pub use self::subject::{Failures, Subject};
