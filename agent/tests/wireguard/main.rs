//! What is pinned here of the kernel's WireGuard as the mesh device, judged by `wg`, `ip` and `ping`:
//! - where the kernel has none, that is said, and nothing is left ([`host`]);
//! - the rest in a guest whose kernel has it ([`in_guest`]): a device is made as asked, and nothing is left of a making that is refused
//!   or broken off; it becomes what it is told, and tells what `wg` shows, a thousand peers too;
//! - a change of one peer disturbs no other, not even when everything is set anew;
//! - it is a peer of our own mesh device, whoever begins, and after its key was changed.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a failed assumption is a failed test; figures are shown"
)]

mod host;
mod in_guest;
mod keeper;
