//! What a node answers its guests on their taps: DHCPv4 ([`dhcp`]), ARP and ICMP echo for their gateway where the
//! kernel does not ([`answer`]), and questions about names ([`dns`]).
//!
//! Each tap has a packet socket of its own with a filter ([`filter`], [`socket`]), and another one if its network
//! resolves names: neither kind of question keeps the other waiting. They receive what the guest sends before the
//! bridge and the packet filter do, so both may drop these packets, and they work on every bridge: locked ports, access
//! ports of VLANs, bridges on which the node has no address. [`Responder`] keeps them for each guest. Nothing here
//! depends on the control plane.

pub mod answer;
pub mod dhcp;
pub mod dns;
pub mod filter;
mod frame;
mod responder;
pub mod socket;

pub use self::answer::{Guest, GuestNames};
pub use self::dhcp::Lease;
pub use self::responder::Responder;
