//! Runs of the program against a fake control plane. They pin
//! - exit code, stdout and stderr of every command, in text and JSON;
//! - every exit code, and the errors that have it;
//! - that the program exits with 7 within 3 s and names the address, if NATS or the control plane is unreachable.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

mod consumers;
mod contexts;
mod explain;
mod fake;
mod join_tokens;
mod manifests;
mod networks;
mod nodes;
mod refusals;
mod state_files;
mod tls;
mod unreachable;
mod usage;
mod users;
mod vms;
mod waiting;
