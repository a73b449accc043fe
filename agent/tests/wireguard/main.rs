//! Tests of the mesh device, with `wg`, `ip` and `ping`:
//! - without WireGuard in the kernel, its use fails with an explanation and leaves nothing ([`host`]);
//! - the kernel's WireGuard, in a guest ([`in_guest`]): a device is created as requested, and a creation that fails or
//!   is interrupted leaves nothing; it becomes what it is configured to be, and its status is what `wg` shows, with a
//!   thousand peers too; a change of one peer affects no other, even if all are set again; it is interoperable with the
//!   userspace device, whichever initiates, and after a change of its key;
//! - the agent's management of either ([`task`]).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a failed assumption is a failed test; figures are shown"
)]

mod host;
mod in_guest;
mod task;
