//! Tests of the process `otherix-mesh`, with a network namespace per node, `wg`, `ip` and `ping`:
//! - traffic: streams arrive unchanged at every offload level, over IPv4, IPv6 and VXLAN, on either underlay, and with
//!   wireguard-go as the peer;
//! - changes: changes of a peer lose no packets; packets of a removed peer are rejected;
//! - clock: a peer whose clock was ahead once is reached;
//! - hostile: handshake floods, forged messages and misbehaving clients of the local socket do not disturb traffic;
//! - lifecycle: the TUN device remains when the process ends; a second process is refused; a new one replaces one that
//!   was killed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

mod changes;
mod clock;
mod hostile;
mod lifecycle;
mod node;
mod traffic;
