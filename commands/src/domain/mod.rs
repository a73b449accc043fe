//! The domain model: which commands the state allows, and which events follow. Pure: synchronous functions of their
//! arguments, without clock, randomness or I/O.
//!
//! [`decide`] turns a command into events or a [`Rejection`], [`State::evolve`] applies an event, [`answer`] builds the
//! reply. The module of a resource holds all three for its commands and events; `decide.rs`, `state.rs` and `reply.rs`
//! only dispatch.

mod address_pool;
mod cluster;
mod codec;
mod decide;
mod enrollment;
mod name_index;
mod network;
mod nic;
mod node;
mod numbering;
mod rejection;
mod reply;
mod reported_status;
mod state;
mod user;
mod vm;

pub use decide::{Decision, decide};
pub use network::{Deletion, Network, Networks};
pub use nic::{Nic, Nics};
pub use node::{FlapAllowance, Members, Mesh, Node, Nodes, RecordedConditions, Roster};
pub use numbering::{EventNumbers, Numbering};
pub use rejection::Rejection;
pub use reply::{Reply, answer};
pub use reported_status::ReportedStatus;
pub use state::State;
pub use user::Users;
pub use vm::{MoveRejection, Moving, Owner, Vm, VmMachine, Vms};
