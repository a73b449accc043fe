//! The kernel's links over rtnetlink, and one switch of theirs in `/proc/sys`. Owns its sockets and the form of the messages; decides nothing.
//!
//! Never says anything of VLANs to a kernel that said nothing of them: one without VLANs refuses the whole message for it.

mod ipv6;
mod message;
mod read;
mod socket;
mod steps;
mod watch;

pub use steps::{Kernel, KernelError, Read};
pub use watch::{Lost, Watch};
