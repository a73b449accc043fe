//! DHCPv4 for a guest that has one address, which is decided elsewhere: no leases are kept, and nothing expires
//! (RFC 2131, RFC 2132).

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::answer::GuestNames;
use crate::dns;
use crate::frame::Mac;

/// How long a lease is valid. A guest asks again after half of it, and keeps its address while the node does not answer
/// for less than the other half.
const LEASE: Duration = Duration::from_secs(3600);

/// The size of the fixed part with the magic cookie, and what clients of BOOTP expect at least, in bytes.
const FIXED: usize = 240;
const MESSAGE_MIN: usize = 300;
/// The longest message that all clients receive: what an IPv4 packet of 576 bytes has room for (RFC 2131).
const MESSAGE_MAX: usize = 548;

const MAGIC: [u8; 4] = [99, 130, 83, 99];
const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;
/// The client cannot receive unicast packets before it has its address.
const BROADCAST: u8 = 0x80;

/// The numbers of options.
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const NETMASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const RESOLVER: u8 = 6;
    pub(super) const HOST: u8 = 12;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const PARAMETERS: u8 = 55;
    pub(super) const RENEWAL: u8 = 58;
    pub(super) const REBINDING: u8 = 59;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const SEARCH: u8 = 119;
    pub(super) const ROUTES: u8 = 121;
    pub(super) const END: u8 = 255;
}

/// The types of a client's messages that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Discover,
    Request,
    Inform,
}

/// The types of a server's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplyKind {
    Offer = 2,
    Ack = 5,
    Nak = 6,
}

/// What a guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub netmask: Ipv4Addr,
    /// The server's identifier: the guest's gateway.
    pub server: Ipv4Addr,
    /// Whether the gateway is a route to other networks.
    pub is_router: bool,
    /// The MTU of the network, in bytes: that of the guest's device.
    pub mtu: u16,
}

/// A message for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) message: Vec<u8>,
    /// Where it is sent; `None` for all hosts of the link.
    pub(crate) to: Option<Ipv4Addr>,
}

/// A message of a client, as far as it is read.
#[derive(Debug)]
struct Message<'a> {
    kind: Kind,
    /// Transaction, seconds and flags.
    head: [u8; 8],
    client_address: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    client: Option<&'a [u8]>,
    /// The numbers of options that the client asks for.
    wanted: &'a [u8],
}

impl<'a> Message<'a> {
    /// Returns the message of the client with this MAC address, if it is one that may be answered.
    fn parse(bytes: &'a [u8], mac: Mac) -> Option<Self> {
        let (fixed, options) = bytes.split_first_chunk::<FIXED>()?;
        let (begin, rest) = fixed.split_first_chunk::<4>()?;
        let (head, rest) = rest.split_first_chunk::<8>()?;
        let (client_address, rest) = rest.split_first_chunk::<4>()?;
        let (relay, rest) = rest.get(8..)?.split_first_chunk::<4>()?;
        let (hardware, _) = rest.split_first_chunk::<6>()?;
        // Guests are no relays.
        let is_client = begin.starts_with(&[BOOT_REQUEST, ETHERNET, 6]) && *relay == [0; 4] && *hardware == mac;
        if !is_client || !fixed.ends_with(&MAGIC) {
            return None;
        }
        let mut options = Options(options);
        let (mut kind, mut requested, mut server, mut client, mut wanted) = (None, None, None, None, [].as_slice());
        while let Some((number, value)) = options.next()? {
            let address = || <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
            match number {
                option::TYPE => {
                    kind = match value {
                        [1] => Some(Kind::Discover),
                        [3] => Some(Kind::Request),
                        [8] => Some(Kind::Inform),
                        // Declines and releases change nothing: the address is the guest's as long as its NIC exists.
                        _ => return None,
                    }
                }
                option::REQUESTED => requested = Some(address()?),
                option::SERVER => server = Some(address()?),
                option::CLIENT => client = Some(value),
                option::PARAMETERS => wanted = value,
                _ => {}
            }
        }
        let client_address = (*client_address).into();
        Some(Self { kind: kind?, head: *head, client_address, requested, server, client, wanted })
    }

    /// Returns what the client is answered; `None` if it asks another server, or nothing that can be answered.
    fn answer(&self, lease: &Lease) -> Option<ReplyKind> {
        if self.server.is_some_and(|server| server != lease.server) {
            return None;
        }
        let has_address = !self.client_address.is_unspecified();
        match self.kind {
            Kind::Discover => Some(ReplyKind::Offer),
            Kind::Inform => has_address.then_some(ReplyKind::Ack),
            Kind::Request => {
                // Of a client that selects an offer or restarts, or else of one that renews its lease.
                let claimed = self.requested.or(has_address.then_some(self.client_address))?;
                Some(if claimed == lease.address { ReplyKind::Ack } else { ReplyKind::Nak })
            }
        }
    }
}

/// The options of a message.
struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// Returns the next option; `Some(None)` at the end, `None` if an option is incomplete.
    #[expect(clippy::option_option, reason = "the end is no error")]
    fn next(&mut self) -> Option<Option<(u8, &'a [u8])>> {
        loop {
            match *self.0 {
                // Some clients leave the end out.
                [] | [option::END, ..] => return Some(None),
                [option::PAD, ref rest @ ..] => self.0 = rest,
                [number, length, ref rest @ ..] => {
                    let (value, rest) = rest.split_at_checked(usize::from(length))?;
                    self.0 = rest;
                    return Some(Some((number, value)));
                }
                [_] => return None,
            }
        }
    }
}

/// Returns the answer to a message of the guest with this MAC address, if there is one.
pub(crate) fn answer(bytes: &[u8], mac: Mac, lease: &Lease, names: Option<&GuestNames>) -> Option<Reply> {
    let request = Message::parse(bytes, mac)?;
    let kind = request.answer(lease)?;
    let Message { head, client_address, .. } = request;
    let is_nak = kind == ReplyKind::Nak;
    // A client that informs itself has an address of its own.
    let given = if is_nak || request.kind == Kind::Inform { Ipv4Addr::UNSPECIFIED } else { lease.address };
    let named = if is_nak { Ipv4Addr::UNSPECIFIED } else { client_address };
    let [.., flags, _] = head;
    let to = match (is_nak, client_address.is_unspecified(), flags & BROADCAST != 0) {
        (true, _, _) | (false, true, true) => None,
        (false, false, _) => Some(client_address),
        (false, true, false) => Some(lease.address),
    };
    let mut message = [&[BOOT_REPLY, ETHERNET, 6, 0][..], &head, &named.octets(), &given.octets(), &[0; 8]].concat();
    message.extend(mac);
    message.resize(FIXED - MAGIC.len(), 0);
    message.extend(MAGIC);
    options(&request, kind, lease, &mut message);
    if let Some(names) = names.filter(|_| !is_nak) {
        name_options(&request, names, lease, &mut message);
    }
    message.push(option::END);
    message.resize(message.len().max(MESSAGE_MIN), option::PAD);
    Some(Reply { message, to })
}

fn push(message: &mut Vec<u8>, number: u8, value: &[u8]) {
    if let Ok(length) = u8::try_from(value.len()) {
        message.extend([number, length]);
        message.extend(value);
    }
}

/// Adds the resolver, the domain, and what else the client asks for about names, as far as there is room: a client may
/// have an identifier of 255 bytes, which it gets back.
fn name_options(request: &Message<'_>, names: &GuestNames, lease: &Lease, message: &mut Vec<u8>) {
    let domain = names.zone.domain();
    let is_wanted = |number: u8| request.wanted.contains(&number);
    for (number, value, is_sent) in [
        (option::RESOLVER, lease.server.octets().to_vec(), true),
        (option::DOMAIN, domain.join(".").into_bytes(), true),
        (option::HOST, names.host.clone().into_bytes(), is_wanted(option::HOST)),
        (option::SEARCH, dns::wire(&domain), is_wanted(option::SEARCH)),
    ] {
        // With the end.
        if is_sent && message.len() + 3 + value.len() <= MESSAGE_MAX {
            push(message, number, &value);
        }
    }
}

fn options(request: &Message<'_>, kind: ReplyKind, lease: &Lease, message: &mut Vec<u8>) {
    let mut add = |number: u8, value: &[u8]| push(message, number, value);
    add(option::TYPE, &[kind as u8]);
    add(option::SERVER, &lease.server.octets());
    if let Some(client) = request.client {
        add(option::CLIENT, client);
    }
    if kind != ReplyKind::Nak {
        if request.kind != Kind::Inform {
            for (number, part) in [(option::LEASE, 8), (option::RENEWAL, 4), (option::REBINDING, 7)] {
                let seconds = u32::try_from(LEASE.as_secs() * part / 8).unwrap_or(u32::MAX);
                add(number, &seconds.to_be_bytes());
            }
        }
        add(option::NETMASK, &lease.netmask.octets());
        add(option::MTU, &lease.mtu.to_be_bytes());
        if lease.is_router {
            add(option::ROUTER, &lease.server.octets());
            if request.wanted.contains(&option::ROUTES) {
                // Of a destination with a prefix of no bits. Clients that ask for routes ignore the router.
                add(option::ROUTES, &[&[0], &lease.server.octets()[..]].concat());
            }
        }
    }
}

#[cfg(test)]
#[path = "dhcp_tests.rs"]
mod tests;
