//! The read side of otherix: projections keep read models up to date from the events ([`follow`]) or rebuild them
//! ([`rebuild`]), and the query service answers requests from them ([`service`]).
//!
//! The [`history`] has what the read models were before. Those of an export are made and queried [`offline`].
//!
//! A read model is a folder with its tables (`schema.sql`), its [`Projection`] and its queries; [`READ_MODELS`] lists
//! them.

mod beside;
pub mod buckets;
pub mod cluster;
mod events;
pub mod follow;
pub mod history;
pub mod network;
pub mod node;
pub mod offline;
pub mod projection;
pub mod query;
mod queue;
pub mod read_models;
pub mod rebuild;
mod schemas;
pub mod service;

mod status;
mod store;
pub mod user;
pub mod vm;

use crate::projection::Projection;

/// Every read model of this version. One that is added here is built from the stored events at the next start.
pub static READ_MODELS: &[&dyn Projection] =
    &[&network::NetworkProjection, &node::NodeProjection, &vm::VmProjection, &user::UserProjection];

/// The read models with a [`history`]: those whose answers follow from the events alone. Whether a user's credential
/// has expired depends on the clock.
pub(crate) static HISTORIC: &[&dyn Projection] =
    &[&network::NetworkProjection, &node::NodeProjection, &vm::VmProjection];
