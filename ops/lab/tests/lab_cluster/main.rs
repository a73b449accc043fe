//! The product as a whole, in a lab of real programs, observed through independent tools. Properties pinned:
//!
//! - a managed bridge exists on every node as specified, its outcomes are in `network get`, and it is removed after
//!   delete;
//! - a node reports `failed` for what it cannot create, and creates nothing;
//! - a bridge that is deleted, set down or altered manually is repaired on every node;
//! - guests on a NAT network reach the outside with their node's address, and cannot be reached from other networks or
//!   from outside; their network cannot be deleted while they are attached;
//! - frames of a guest are accepted from its NIC's MAC only, and it is reconnected after its tap was deleted and
//!   repaired;
//! - guests on an overlay reach each other across nodes, with full-size packets and megabytes of TCP, but not guests of
//!   another overlay with the same addresses; the underlay carries nothing of it in clear text, and neither a host of
//!   the underlay nor a guest behind NAT nor a foreign WireGuard peer can inject a frame;
//! - an overlay loses no packet while agents are killed and restarted, the control plane is down, or both; a node that
//!   is rebooted during that time recreates everything;
//! - after the mesh's process was killed or its device altered, it is repaired and guests stay connected; a key is
//!   rotated within a second;
//! - an overlay whose packets do not pass between two nodes is `pending` on both, and every command states the reason;
//! - a partitioned node keeps its devices, and catches up once it is healed;
//! - after each step of a random sequence (networks and VMs are created and deleted, nodes join and are removed) every
//!   node has exactly what the events imply: links, forwarding entries, mesh peers, routes and addresses; and no
//!   device that must stay is recreated;
//! - a removed node keeps no device of otherix if it receives the removal, is not let in any more in any case, and its
//!   machine can join as another node;
//! - a token joins as many machines as it permits, under the names that it permits, until it expires or is revoked; a
//!   node whose state folder is lost becomes the same node again; a node's key is rotated while its agent runs;
//! - a journal that was rewritten, with a log that was signed anew with the real key, is found by every node that had a
//!   later checkpoint;
//! - a plain JetStream consumer and a plain subscriber read every decision and outcome, byte for byte as in the
//!   journal;
//! - with `otherixd`, `nats` and agents killed under load, nothing acknowledged is lost or duplicated, nothing is left
//!   over, and stream sequences are journal positions.
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

mod addresses;
mod audit;
mod bridges;
mod changes;
mod conditions;
mod cut_off;
mod drift;
mod guests;
mod join;
mod kill;
mod lab;
mod machines;
mod moves;
mod names;
mod overlay;
mod partition;
mod removal;
mod sequence;
mod soak;
mod traffic;
