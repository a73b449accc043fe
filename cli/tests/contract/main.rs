//! The contract with people, row by row and sentence by sentence, for bridges and for the rules of overlays: transcripts of
//! the real program against a real control plane. What is pinned:
//! - exit code, stdout and stderr of each line of the transcripts in `cases/`;
//! - whatever the program refuses, the control plane refuses too, with the same fields, when it is asked without the program;
//! - a success says nothing on stderr, a failure nothing on stdout, and an error is one JSON object where JSON is asked for;
//! - a page of a list stays where it is while networks come and go;
//! - `--wait` waits for the nodes that were joined and reachable at the network's position, and ends with 0, 8 or 124;
//! - a VM comes with its NIC on a ready node, or not at all, and no network is deleted under a NIC;
//! - a node shows its place in the mesh, and what it last said of its peers;
//! - the same key and body give the first answer again, another body is refused.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

mod case;
mod manifests;
mod mesh;
mod node;
mod nodes;
mod place;
mod plane;
mod requests;
mod transcript;
mod transcripts;
mod vm_manifests;
mod vms;
