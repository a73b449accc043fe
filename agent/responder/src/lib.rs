//! What a node answers its guests on their taps: DHCPv4 ([`dhcp`]), and ARP and ICMP echo for their gateway where the
//! kernel does not ([`answer`]).
//!
//! Each tap has a packet socket of its own with a filter ([`filter`], [`socket`]). It receives what the guest sends
//! before the bridge and the packet filter do, so both may drop these packets, and it works on every bridge: locked
//! ports, access ports of VLANs, bridges on which the node has no address. [`Responder`] keeps one for each guest.
//! Nothing here depends on the control plane.

pub mod answer;
pub mod dhcp;
pub mod filter;
mod frame;
mod responder;
pub mod socket;

pub use self::answer::Guest;
pub use self::dhcp::Lease;
pub use self::responder::Responder;
