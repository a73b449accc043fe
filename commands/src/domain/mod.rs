//! What may happen, and what follows from what happened. Pure: synchronous functions of their
//! arguments, without clock, randomness or I/O.
//!
//! [`decide`] turns a command into events or a [`Rejection`], [`State::evolve`] takes an event in,
//! [`answer`] says what the asker is told.

mod answer;
mod decide;
mod flaps;
mod heads;
mod mesh;
mod networks;
mod nodes;
mod presence;
mod rejection;
mod said;
mod state;
mod vms;

pub use answer::{Reply, answer};
pub use decide::{Decision, decide};
pub use flaps::Allowance;
pub use heads::Heads;
pub use mesh::Mesh;
pub use presence::{Members, Roster};
pub use rejection::Rejection;
pub use said::Said;
pub use state::{Deletion, Network, Node, State};
pub use vms::{Nic, Nics, Vm};
