//! The kernel's table of connections, for flows that began while nothing protected a network. Numbers are from
//! linux/netfilter/nfnetlink_conntrack.h and linux/netfilter/nf_conntrack_common.h.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use otherix_netlink::{Attribute, Message, NLM_F_DUMP, Protocol, Reply, RequestError, Socket, attributes, find};

use crate::model::route::Prefix;

/// Size of the socket's buffers, in bytes.
const BUFFER: usize = 1 << 20;

/// Most deletions in one datagram.
const BATCH: usize = 32;

/// How often the connections are read: packets that were on their way when the rules were written may add some.
const ROUNDS: u32 = 3;

/// `NFNL_SUBSYS_CTNETLINK`, in a message's type.
const SUBSYSTEM: u16 = 1 << 8;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const AF_INET: u8 = 2;
/// `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;
/// Set on the type of attributes that contain attributes.
const NESTED: u16 = 0x8000;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_STATUS_MASK: u16 = 26;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;

/// `IPS_SRC_NAT`: the source address is translated.
const SOURCE_NAT: u32 = 1 << 4;

/// `ENOENT`: there is no such connection any more.
const ENOENT: i32 = 2;

/// Deletes the connections between one of these subnets and other addresses whose source is not translated, and returns
/// their number. The next packet of each begins a connection of its own, to which the present rules apply.
///
/// # Errors
/// [`RequestError`], in a kernel without access to connections too.
pub(super) fn forget_untranslated(subnets: &BTreeSet<Prefix>) -> Result<usize, RequestError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    socket.set_buffers(BUFFER)?;
    let mut deleted = 0;
    for _ in 0..ROUNDS {
        let connections = read(&mut socket, subnets)?;
        if connections.is_empty() {
            break;
        }
        deleted += connections.len();
        delete(&mut socket, connections)?;
    }
    Ok(deleted)
}

/// A connection: the attributes that identify it, with their types.
type Identity = Vec<(u16, Vec<u8>)>;

fn read(socket: &mut Socket, subnets: &BTreeSet<Prefix>) -> Result<Vec<Identity>, RequestError> {
    let filtered = |is_filtered: bool| {
        let mut message = request(IPCTNL_MSG_CT_GET, NLM_F_DUMP);
        if is_filtered {
            message.put(CTA_STATUS, &0_u32.to_be_bytes());
            message.put(CTA_STATUS_MASK, &SOURCE_NAT.to_be_bytes());
        }
        message
    };
    let mut found = Vec::new();
    let mut dump = |message| {
        found.clear();
        socket.request(message, |reply| found.extend(identity(reply, subnets)))
    };
    match dump(filtered(true)) {
        // Kernels before Linux 5.15 ignore the filter or refuse it.
        Err(RequestError::Refused(_)) => dump(filtered(false))?,
        dumped => dumped?,
    };
    Ok(found)
}

fn delete(socket: &mut Socket, connections: Vec<Identity>) -> Result<(), RequestError> {
    let messages = connections.into_iter().map(|identity| {
        let mut message = request(IPCTNL_MSG_CT_DELETE, 0);
        identity.iter().for_each(|(kind, value)| {
            message.put(*kind, value);
        });
        message
    });
    let messages: Vec<_> = messages.collect();
    for batch in messages.chunks(BATCH) {
        let results = socket.exchange(batch.to_vec(), |_, _| {})?;
        let refusal = results.into_iter().find_map(|result| result.err().filter(|refusal| refusal.errno() != ENOENT));
        refusal.map_or(Ok(()), |refusal| Err(RequestError::from(refusal)))?;
    }
    Ok(())
}

fn request(kind: u16, flags: u16) -> Message {
    let mut message = Message::new(SUBSYSTEM | kind, flags);
    message.push(&[AF_INET, 0, 0, 0]);
    message
}

/// Returns what identifies the connection, if it is to be deleted.
fn identity(reply: Reply<'_>, subnets: &BTreeSet<Prefix>) -> Option<Identity> {
    let fields = reply.payload.get(FAMILY_HEADER..)?;
    let status = u32::from_be_bytes(find(fields, CTA_STATUS)?.array()?);
    let tuple = find(fields, CTA_TUPLE_ORIG)?;
    let (source, destination) = addresses(tuple)?;
    let subnet = |address: Ipv4Addr| subnets.iter().find(|subnet| subnet.contains(address));
    let crosses = subnet(source) != subnet(destination);
    let identity = attributes(fields).map_while(Result::ok).filter_map(|attribute| match attribute.kind {
        CTA_TUPLE_ORIG => Some((CTA_TUPLE_ORIG | NESTED, attribute.value.to_vec())),
        CTA_ID | CTA_ZONE => Some((attribute.kind, attribute.value.to_vec())),
        _ => None,
    });
    (crosses && status & SOURCE_NAT == 0).then(|| identity.collect())
}

/// Returns source and destination of a tuple.
fn addresses(tuple: Attribute<'_>) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let addresses = find(tuple.value, CTA_TUPLE_IP)?;
    let address = |kind| find(addresses.value, kind)?.array().map(u32::from_be_bytes).map(Ipv4Addr::from_bits);
    Some((address(CTA_IP_V4_SRC)?, address(CTA_IP_V4_DST)?))
}
