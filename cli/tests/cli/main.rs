//! Whole runs of the program against a control plane that answers as each test says. What is pinned:
//! - exit code, stdout and stderr of every command, in text and JSON;
//! - every exit code, and which error has it;
//! - NATS or the control plane down: exit 7 within 3 s, naming the address.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

mod down;
mod fake;
mod manifests;
mod networks;
mod nodes;
mod refusals;
mod usage;
mod vms;
mod waiting;
