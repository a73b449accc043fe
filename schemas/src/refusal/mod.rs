//! Commands that were refused, as people see them: who asked for what, and why it was not done. They are no part of the
//! state, and no event is about them. Request, view.

mod request;
mod view;

pub(crate) use self::request::REQUESTS;
pub use self::request::{ListRefusals, NamedResource, REFUSAL_IDS_MAX, RefusalQuery};
pub use self::view::{REFUSALS_MAX, RefusalView, Refusals};
