//! What is pinned here, with the mesh device as a process of its own and a network namespace for each node, judged by `wg`, `ip`,
//! `ping` and SHA-256:
//! - traffic: packets and streams arrive whole in every offload mode, over IPv4, IPv6 and VXLAN, on either underlay;
//! - wireguard-go is a peer like any other, in both directions;
//! - changes: a peer's change loses nothing, neither the others' packets nor its own; a removed peer gets nothing in;
//! - hostile: floods of handshakes, forged senders, clients of the local socket that hang or babble stop no traffic;
//! - life: the TUN device outlives the process, which is refused a second time and takes over from one that was killed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

mod changes;
mod hostile;
mod life;
mod node;
mod traffic;
