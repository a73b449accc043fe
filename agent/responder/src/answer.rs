//! What a guest is answered: a function of the guest and the frame alone.

use std::net::Ipv4Addr;

use crate::dhcp::{self, Lease};
use crate::frame::{Addresses, BROADCAST, Mac, Request, arp_reply, dhcp_reply, echo_reply};

/// The most data of an echo request that is answered, in bytes: what fits a packet of any link.
const ECHO_MAX: usize = 1_472;

/// A guest on a network that assigns addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The MAC address of its NIC. What comes from another one is ignored.
    pub mac: Mac,
    pub lease: Lease,
    /// The MAC address of its gateway, from which it is answered.
    pub gateway_mac: Mac,
    /// The gateway is this responder: there is no device of the node that has its address.
    pub answers_for_gateway: bool,
}

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
                let reply = dhcp::answer(message, self.mac, &self.lease)?;
                let addresses = match reply.to {
                    Some(address) => to_guest(address),
                    None => Addresses { to: (BROADCAST, Ipv4Addr::BROADCAST), ..to_guest(Ipv4Addr::BROADCAST) },
                };
                Some(dhcp_reply(addresses, &reply.message))
            }
        }
    }
}
