//! The contract of the command line: the real program against a real control plane. It pins that
//! - each line of the transcripts in `cases/` has this exit code, stdout and stderr;
//! - the control plane rejects whatever the program rejects, with the same fields;
//! - a success writes nothing to stderr, a failure nothing to stdout, and with JSON output an error is one JSON object;
//! - pages of a list are stable while networks are created and deleted;
//! - `--wait` waits for the nodes that were joined and reachable at the network's position, and exits with 0, 8 or 124;
//! - a VM is created with its NIC on a ready node, or not at all, and no network with NICs is deleted;
//! - a node shows its membership in the mesh, and the last reported state of its peers;
//! - events are listed and followed as they are stored, each with its cause;
//! - what is applied twice is recorded once;
//! - schemas are printed as they are checked in;
//! - the state at an earlier position or time is printed as it was then, also from an export without a control plane;
//! - the same idempotency key and body return the first answer again, and another body is refused.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

mod apply;
mod case;
mod control_plane;
mod events;
mod manifests;
mod mesh;
mod node;
mod nodes;
mod past;
mod replay;
mod requests;
mod schemas;
mod transcript;
mod transcripts;
mod vm_manifests;
mod vms;
mod workspace;
