//! Read models, as their administrators see them: how far each is, and their rebuild. They are no part of the state,
//! and no event is about them. Requests, view.

mod request;
mod view;

pub(crate) use self::request::REQUESTS;
pub use self::request::{AllProjections, ProjectionStatus, RebuildProjections};
pub use self::view::{
    ProjectionErrorView, ProjectionState, ProjectionView, ProjectionsView, RebuildState, RebuildView,
};
