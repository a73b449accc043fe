//! Tests of the agent's effect on the kernel, in network namespaces and verified with `ip -d -j`:
//! - managed bridges are created as required, with any MTU, and removed; a name passes from a deleted network to a new
//!   one ([`creation`]);
//! - drift is repaired within a second, from notifications alone; if a program keeps undoing the repairs, they are
//!   limited in rate ([`drift`]);
//! - foreign devices and ports are never changed, whatever name they have ([`foreign`]);
//! - unmanaged bridges are followed and never changed ([`unmanaged`]);
//! - after a kill at any message to the kernel, every device that was left is identifiable as ours ([`kills`]);
//! - networks with egress: which packets pass and which do not, and repair of drift ([`nat`], [`uplinks`],
//!   [`isolation`]);
//! - the node does not become a router between its uplinks ([`transit`]);
//! - connections that began without the rules of networks with egress do not outlast that ([`flows`]);
//! - a network is ready only if the packet filters of other programs let its packets pass ([`filters`]);
//! - networks that would take away what the node needs or has are not made ([`conflicts`]);
//! - guests reach nothing of their node but the gateway's echo, and send nothing that only the network may send
//!   ([`guests`]);
//! - taps are created as required, repaired, and accept no frames with the address of another NIC ([`taps`]);
//! - overlays: guests on different nodes reach each other, forwarding is as decided, and no other host can inject
//!   frames ([`overlay`]);
//! - writes to `/proc/sys` wait for the rtnl lock without spinning ([`sysctl`]);
//! - VLANs, in a guest whose kernel has them ([`in_guest`]);
//! - lost notifications, names of any bytes, and thousands of foreign devices ([`robustness`]).
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failed assumption is a failed test"
)]

mod changes;
mod conflicts;
mod contact;
mod creation;
mod drift;
mod filters;
mod flows;
mod foreign;
mod guests;
mod host;
mod in_guest;
mod isolation;
mod kills;
mod nat;
mod node;
mod overlay;
mod robustness;
mod sysctl;
mod taps;
mod transit;
mod unmanaged;
mod uplinks;
