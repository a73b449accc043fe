//! The WireGuard device of the mesh on this node: creates `otwg0`, keeps it as the decisions require, and removes it,
//! whether the kernel or a process serves it.
//!
//! - [`task`]: a task beside the agent's loop, and its handle; `reconcile`: one pass, blocking
//! - `configuration`: the changes that WireGuard is sent (pure); [`crate::model::mesh`]: those of the link (pure)
//! - `server`: the kernel's WireGuard ([`kernel`]) or a process; `process`: that process, `otherix-mesh`
//! - `probe`: proves that full-size packets pass to each node and back; `faults`: what prevents that
//! - `keys`: the node's private keys; `underlay`: this node's endpoint; [`rotation`]: `rotate-key`

mod configuration;
mod faults;
pub mod kernel;
mod keys;
mod probe;
mod process;
mod reconcile;
pub mod rotation;
mod server;
pub mod task;
mod underlay;

pub use self::keys::KeyFileError;
pub use self::server::Backend;
pub use self::task::{MeshHandle, MeshStartError, MeshTask, MeshTaskOptions};
