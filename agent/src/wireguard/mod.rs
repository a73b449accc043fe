//! The mesh on this node: `otwg0` made, kept as the decisions say, and taken away, whatever serves it.
//!
//! - [`keeper`]: beside the agent's loop, told by it and telling it; [`device`]: one pass, blocking
//! - [`tunnel`]: what WireGuard is to be told (pure); [`crate::model::mesh`]: what the device must be as a link (pure)
//! - [`engine`]: the kernel's WireGuard ([`kernel`]) or a process of ours; [`process`]: that process, which is [`crate::mesh`]
//! - [`keys`]: the node's private keys; [`underlay`]: where the other nodes reach this one; [`rotation`]: `rotate-key`

mod device;
mod engine;
pub mod keeper;
pub mod kernel;
mod keys;
mod process;
pub mod rotation;
mod tunnel;
mod underlay;

pub use self::engine::Backend;
pub use self::keeper::{Keeper, Mesh, MeshError, Options};
pub use self::keys::KeyFileError;
