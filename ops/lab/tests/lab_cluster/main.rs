//! The product as a whole, in a lab of real programs, seen through independent tools. Promises pinned:
//!
//! - a managed bridge is on every node as asked for, its outcomes are in `network get`, and it is gone after delete;
//! - what a node cannot realise it reports `failed`, and makes nothing;
//! - a bridge that somebody deletes, downs or alters is made as it was, on every node;
//! - guests on a NAT network reach the outside with their node's address, and are reached neither from another network
//!   nor from outside; their network is not deleted while they are on it;
//! - a guest is heard by its NIC's MAC only, and speaks again once a tap that somebody deleted is repaired;
//! - guests on an overlay reach each other across nodes, whole packets and megabytes of TCP, and nobody of another
//!   overlay with the same addresses; the underlay carries nothing of it in the clear, and no host of it, guest behind
//!   NAT or stranger to the mesh gets a frame in;
//! - an overlay loses no packet while agents are killed and started again, the control plane is away, or both; a node
//!   that is rebooted meanwhile makes all anew;
//! - the mesh's process killed, its device altered in whatever way: mended, and guests go on; a key is exchanged within
//!   a second;
//! - a node that is cut off keeps what it has, and catches up once it is healed;
//! - after each step of a random sequence (networks and VMs come and go, nodes join and leave) every node has exactly
//!   what the events read so far imply: links, forwarding entries, the mesh's peers, routes and addresses; and what is
//!   to stay is never made anew;
//! - a node that leaves the cluster has nothing of ours left on it, whenever it hears of it, and its machine comes back
//!   as another;
//! - a plain JetStream consumer and a plain subscriber read every decision and outcome, byte for byte the journal's;
//! - `otherixd`, `nats` and agents killed with -9 under writers: nothing that was acknowledged is missing or doubled,
//!   nothing is left over, and stream sequences are journal positions.
//!
//! The programs are those beside `otherix-lab` in the target folder: build the workspace first (`make test` does).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed assumption is a failed test; measured figures are printed"
)]

mod bridges;
mod drift;
mod guests;
mod kill;
mod lab;
mod overlay;
mod partition;
mod removal;
mod sequence;
mod soak;
