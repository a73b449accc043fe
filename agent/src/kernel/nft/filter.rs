//! The socket of the packet filter: requests, replies and notifications. Numbers are from linux/netfilter/nfnetlink.h
//! and linux/netfilter/nf_tables.h.

use std::io;

use otherix_netlink::{HEADER_LEN, Message, Protocol, Refusal, Reply, RequestError, Socket, find};

use super::batch::locks;
use super::snapshot::{NFTA_SET_ELEM_LIST_SET, parse_locks};
use super::tables::{FAMILY_BRIDGE, FAMILY_IPV6, OurTables};
use crate::model::notification::LockChange;

/// Size of the socket's buffers, in bytes: for the batch of some 20,000 networks.
const BUFFER: usize = 32 << 20;

/// `NFNL_SUBSYS_NFTABLES`, in a message's type.
pub(super) const SUBSYSTEM: u16 = 10 << 8;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;
const NFNL_BATCH_GENID: u16 = 1;

/// `NLM_F_ACK`, which libnftnl sets on every message of a batch.
const NLM_F_ACK: u16 = 0x004;

/// `struct nfgenmsg`.
pub(super) const FAMILY_HEADER: usize = 4;

/// `ERESTART`: the packet filter is of another generation than the batch is for.
const ERESTART: i32 = 85;

/// `ENOENT`: there is no such object.
const ENOENT: i32 = 2;

/// `EOPNOTSUPP`: the kernel has no packet filter for the family.
const EOPNOTSUPP: i32 = 95;

#[derive(Debug, thiserror::Error)]
pub(in crate::kernel) enum FilterError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("other processes keep changing it at the same time")]
    Busy,
    #[error("the netlink socket failed: {0}")]
    Socket(#[from] io::Error),
    #[error("`{0}` is not a valid device name")]
    Name(String),
}

impl FilterError {
    /// Whether the kernel may lack the packet filter of a family.
    pub(super) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Refused(refusal) if [EOPNOTSUPP, ENOENT].contains(&refusal.errno()))
    }
}

impl From<RequestError> for FilterError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused(refusal) if refusal.errno() == ERESTART => Self::Busy,
            RequestError::Refused(refusal) => Self::Refused(refusal),
            RequestError::Socket(error) => Self::Socket(error),
        }
    }
}

/// An object of the packet filter: its message type without the subsystem, and its message's payload.
pub(super) struct FilterObject {
    pub(super) kind: u16,
    pub(super) body: Vec<u8>,
}

/// A socket to the packet filter of a network namespace.
pub(super) struct FilterSocket(Socket);

impl FilterSocket {
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::open(Protocol::Netfilter)?;
        socket.set_buffers(BUFFER)?;
        Ok(Self(socket))
    }

    /// Returns the current generation.
    pub(super) fn generation(&mut self) -> Result<u32, FilterError> {
        let mut generation = None;
        self.0.request(generation_request(), |reply| generation = generation.or_else(|| parse_generation(reply)))?;
        generation.ok_or_else(no_generation)
    }

    /// Applies a batch if this is still the current generation. Returns the new one.
    pub(super) fn commit(&mut self, batch: &[u8], generation: u32) -> Result<u32, FilterError> {
        let mut reported = None;
        let batch = for_generation(batch, generation);
        self.0.submit(&batch, generation_request(), |reply| reported = reported.or_else(|| parse_generation(reply)))?;
        let reported = reported.ok_or_else(no_generation)?;
        // A batch that changes nothing does not begin a generation.
        let next = generation.checked_add(1).unwrap_or(1);
        if reported == generation || reported == next { Ok(reported) } else { Ok(next) }
    }

    /// Reads all objects that a dump request selects.
    ///
    /// # Errors
    /// [`FilterError::Busy`] if they changed during the dump.
    pub(super) fn dump(&mut self, request: Message) -> Result<Vec<FilterObject>, FilterError> {
        let mut objects = Vec::new();
        let completion = self.0.request(request, |reply| objects.push(FilterObject::new(reply)))?;
        if completion.interrupted { Err(FilterError::Busy) } else { Ok(objects) }
    }

    /// Reads one object, if it exists.
    pub(super) fn find(&mut self, request: Message) -> Result<Option<FilterObject>, FilterError> {
        let mut object = None;
        match self.0.request(request, |reply| object = Some(FilterObject::new(reply))) {
            Ok(_) => Ok(object),
            Err(error) if error.errno() == Some(ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl FilterObject {
    fn new(reply: Reply<'_>) -> Self {
        Self { kind: reply.kind & 0xff, body: reply.payload.to_vec() }
    }
}

/// Encodes a request for objects of a family; 0 for those of all families.
pub(super) fn request(kind: u16, flags: u16, family: u8) -> Message {
    let mut message = Message::new(SUBSYSTEM | kind, flags);
    message.push(&[family, 0, 0, 0]);
    message
}

fn generation_request() -> Message {
    request(NFT_MSG_GETGEN, 0, 0)
}

fn parse_generation(reply: Reply<'_>) -> Option<u32> {
    let attributes = reply.payload.get(FAMILY_HEADER..).filter(|_| reply.kind & 0xff == NFT_MSG_NEWGEN)?;
    find(attributes, NFTA_GEN_ID)?.array().map(u32::from_be_bytes)
}

fn no_generation() -> FilterError {
    FilterError::Socket(io::Error::other("the reply has no generation"))
}

/// Returns the batch with the generation in its first message, and without requests for acknowledgements.
fn for_generation(batch: &[u8], generation: u32) -> Vec<u8> {
    let mut is_first = true;
    let (mut result, mut rest) = (Vec::with_capacity(batch.len() + 8), batch);
    while let Some(length) = rest.first_chunk().map(|length| u32::from_ne_bytes(*length)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX).next_multiple_of(4);
        let Some((message, others)) = rest.split_at_checked(length.max(HEADER_LEN)) else { break };
        let begin = result.len();
        result.extend(message);
        if std::mem::take(&mut is_first) {
            result.extend(8_u16.to_ne_bytes());
            result.extend(NFNL_BATCH_GENID.to_ne_bytes());
            result.extend(generation.to_be_bytes());
            let length = u32::try_from(result.len()).unwrap_or(u32::MAX);
            result.iter_mut().zip(length.to_ne_bytes()).for_each(|(to, from)| *to = from);
        }
        if let Some([low, high]) = result.get_mut(begin + 6..).and_then(|flags| flags.first_chunk_mut()) {
            let flags = u16::from_ne_bytes([*low, *high]) & !NLM_F_ACK;
            [*low, *high] = flags.to_ne_bytes();
        }
        rest = others;
    }
    result
}

/// Returns the value of an attribute of a message's payload.
pub(super) fn attribute(body: &[u8], kind: u16) -> Option<Vec<u8>> {
    find(body.get(FAMILY_HEADER..)?, kind).map(|attribute| attribute.value.to_vec())
}

/// What a relevant notification of the packet filter is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum FilterNotification {
    /// Locks of taps were added, or removed.
    Locks(Vec<LockChange>),
    /// A table of ours, or another object in it.
    Ours,
    /// A table of others, or an object in it.
    Foreign,
}

/// Parses a notification; `None` if it is not relevant, such as those about tables of other families.
pub(in crate::kernel) fn parse_notification(reply: Reply<'_>) -> Option<FilterNotification> {
    let Reply { kind, payload: body, .. } = reply;
    if kind & 0xff00 != SUBSYSTEM || kind & 0xff == NFT_MSG_NEWGEN {
        return None;
    }
    let is_added = match kind & 0xff {
        NFT_MSG_NEWSETELEM => Some(true),
        NFT_MSG_DELSETELEM => Some(false),
        _ => None,
    };
    if let Some(is_added) = is_added
        && OurTables::GUESTS.have_in(FAMILY_BRIDGE, body)
        && attribute(body, NFTA_SET_ELEM_LIST_SET).is_some_and(|set| locks::has_locks(&set))
    {
        let changes = parse_locks(body).into_iter().map(|(tap, lock)| LockChange { tap, lock, is_added });
        return Some(FilterNotification::Locks(changes.collect()));
    }
    if OurTables::ALL.iter().any(|tables| tables.have(body)) {
        return Some(FilterNotification::Ours);
    }
    (body.first() != Some(&FAMILY_IPV6)).then_some(FilterNotification::Foreign)
}
