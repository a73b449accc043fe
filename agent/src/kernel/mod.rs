//! The kernel's links over rtnetlink. Owns its sockets and the form of the messages; decides nothing.
//!
//! Never sends a VLAN attribute: a kernel without VLANs refuses the whole message for it.

mod message;
mod socket;
mod steps;
mod watch;

pub use steps::{Kernel, KernelError};
pub use watch::{Lost, Watch};
