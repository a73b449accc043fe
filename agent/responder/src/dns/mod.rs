//! Names of the VMs of a network, and questions about others, which the node's resolvers are asked.
//!
//! A guest asks its gateway. `<vm>.<network>.otherix.internal` and the names of the subnet's addresses are answered
//! from the decisions, on the network that the question came from only ([`zone`]). Networks with egress have the rest
//! relayed ([`relay`]); on others, that would be a way out. Questions over UDP are received on the guest's tap, before
//! the bridge and the packet filter ([`udp`]), and over TCP on the bridge, if the node's kernel has the gateway's
//! address there ([`tcp`]).
//!
//! What a guest may cost is limited: [`client`].

pub(crate) mod client;
pub(crate) mod message;
mod relay;
mod reverse;
pub(crate) mod tcp;
pub(crate) mod udp;
mod upstreams;
mod zone;

pub use self::client::Limits;
pub use self::relay::Relay;
pub use self::tcp::Gateway;
pub use self::upstreams::{PORT, Upstreams};
pub(crate) use self::zone::wire;
pub use self::zone::{DOMAIN, Names, Zone};
