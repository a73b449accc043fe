//! What a guest is answered: a function of the guest and the frame alone.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::dhcp::{self, Lease};
use crate::dns::Zone;
use crate::frame::{Addresses, BROADCAST, Mac, Request, arp_reply, dhcp_reply, echo_reply};

/// The most data of an echo request that is answered, in bytes: what fits a packet of any link.
const ECHO_MAX: usize = 1_472;

/// A guest on a network that assigns addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The MAC address of its NIC. What comes from another one is ignored.
    pub mac: Mac,
    pub lease: Lease,
    /// The MAC address of its gateway, from which it is answered.
    pub gateway_mac: Mac,
    /// The gateway is this responder: there is no device of the node that has its address.
    pub answers_for_gateway: bool,
    /// Present if its network resolves names.
    pub names: Option<GuestNames>,
}

/// The name of a guest, and the names that it can ask for.
#[derive(Clone, Debug)]
pub struct GuestNames {
    /// A label.
    pub host: String,
    pub zone: Arc<Zone>,
}

impl PartialEq for GuestNames {
    /// Names may come and go in the zone: it is the same one.
    fn eq(&self, other: &Self) -> bool {
        self.host == other.host && Arc::ptr_eq(&self.zone, &other.zone)
    }
}

impl Eq for GuestNames {}

impl Guest {
    /// Returns the frame that answers a frame of the guest, if there is one.
    pub fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let gateway = self.lease.server;
        let to_guest = |address: Ipv4Addr| Addresses { from: (self.gateway_mac, gateway), to: (self.mac, address) };
        match Request::parse(frame, self.mac)? {
            Request::Arp { sender, target } if self.answers_for_gateway && target == gateway => {
                // A guest that has another guest's address learns nothing; one that has none yet may ask.
                let is_own = sender == self.lease.address || sender.is_unspecified();
                is_own.then(|| arp_reply(to_guest(sender)))
            }
            Request::Echo { source, destination, rest } if self.answers_for_gateway && destination == gateway => {
                let is_answered = source == self.lease.address && rest.len() <= ECHO_MAX;
                is_answered.then(|| echo_reply(to_guest(source), rest))
            }
            Request::Arp { .. } | Request::Echo { .. } => None,
            Request::Dhcp { message } => {
                let reply = dhcp::answer(message, self.mac, &self.lease, self.names.as_ref())?;
                let addresses = match reply.to {
                    Some(address) => to_guest(address),
                    None => Addresses { to: (BROADCAST, Ipv4Addr::BROADCAST), ..to_guest(Ipv4Addr::BROADCAST) },
                };
                Some(dhcp_reply(addresses, &reply.message))
            }
        }
    }
}
