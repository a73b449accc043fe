//! VMs that boot: the tiny guest of `ops/image`, under TCG.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed assumption is a failed test")]

mod guest;
mod in_guest;
mod in_qemu;
mod kills;
mod supervised;
