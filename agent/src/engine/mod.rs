//! The reconciliation engine: it plans, executes, observes and retries. It gets the device kinds as a list, and depends
//! on none of them; a step's action has all properties that the engine needs.
//!
//! - [`kind`]: the trait of device kinds
//! - [`step`]: steps and their actions; [`subject`]: what steps concern, and which subjects are not to be tried for now
//! - [`plan`]: the difference between desired and observed state, as steps; pure, as are `context`, `survey` and `text`
//! - [`execute`]: executes steps on the kernel; [`remove`]: the removal of a link, an action of all kinds
//! - [`reconciler`]: the passes; `notifications`, `look_up`, `cache`, [`memo`], [`retry`]: its parts

mod cache;
pub mod context;
pub mod execute;
pub mod kind;
mod look_up;
pub mod memo;
mod notifications;
pub mod plan;
pub mod reconciler;
pub mod remove;
pub mod retry;
pub mod step;
mod step_log;
pub mod subject;
pub mod survey;
pub(crate) mod text;

pub use self::context::{PlanContext, PlanInputs};
pub use self::execute::execute;
pub use self::kind::{DeviceKind, Interest, Kinds, OwnerClaim};
pub use self::memo::Memos;
pub use self::plan::{Plan, plan, plan_with};
pub use self::reconciler::{Pass, Reconciler};
pub use self::step::{Step, StepAction};
pub use self::subject::{Failures, Subject};
