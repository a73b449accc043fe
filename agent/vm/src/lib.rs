//! VMs on a node: each is a QEMU process of its own, unprivileged and sandboxed, which outlives the agent.
//!
//! - [`spec`]: what a VM is started with
//! - [`accelerator`]: KVM or TCG
//! - [`command_line`]: QEMU's arguments for it
//! - [`launch`]: the launcher, a process that opens what the VM needs, gives up all privileges, and becomes QEMU
//! - [`console`]: the serial console, for several readers and one writer, and its log
//! - [`folder`]: the files of a VM, and the lock that its process holds
//! - [`process`]: starts a VM's process or finds a running one, and ends it
//! - [`qmp`]: QEMU's control protocol
//! - [`seed`]: the cloud-init seed
//! - [`supervisor`]: what to do next, given what is wanted and what is observed
//! - [`machine`]: does it
//!
//! Nothing here knows of the agent's events or of the control plane.

pub mod accelerator;
pub mod command_line;
pub mod console;
pub mod folder;
pub mod launch;
pub mod machine;
pub mod process;
pub mod qmp;
pub mod seed;
mod socket;
pub mod spec;
pub mod supervisor;
