//! Requests under construction, and the messages of a received datagram.

use std::fmt;

use zeroize::Zeroizing;

use crate::attribute::ATTRIBUTE_HEADER_LEN;

/// Length in bytes of `struct nlmsghdr`.
pub const HEADER_LEN: usize = 16;

pub(crate) const NLM_F_REQUEST: u16 = 0x001;
/// Acknowledge the request even if it succeeds.
const NLM_F_ACK: u16 = 0x004;
/// Send the notification of the change to the requester as well.
pub const NLM_F_ECHO: u16 = 0x008;
/// Return all objects that match (`NLM_F_ROOT | NLM_F_MATCH`).
pub const NLM_F_DUMP: u16 = 0x300;
/// Replace an existing object.
pub const NLM_F_REPLACE: u16 = 0x100;
/// Fail if the object exists.
pub const NLM_F_EXCL: u16 = 0x200;
/// Create the object if it does not exist.
pub const NLM_F_CREATE: u16 = 0x400;
/// Append to a list of objects with the same key.
pub const NLM_F_APPEND: u16 = 0x800;

/// Set on the type of attributes that contain attributes.
const NLA_F_NESTED: u16 = 0x8000;

/// A request: `struct nlmsghdr`, the header of the protocol, attributes. [`Socket`](crate::Socket) sets the length and
/// the sequence number, and requests an acknowledgement unless the reply is a dump.
///
/// Create a message that contains a secret [`with_capacity`](Self::with_capacity) for all of it: a reallocation leaves
/// a copy of the content in memory.
#[derive(Clone)]
pub struct Message(Zeroizing<Vec<u8>>);

/// An attribute that [`Message::open`] began and [`Message::close`] ends.
#[derive(Debug)]
#[must_use]
pub struct Nest(usize);

impl Message {
    /// Creates a request of this type with an empty payload.
    #[must_use]
    pub fn new(kind: u16, flags: u16) -> Self {
        Self::with_capacity(kind, flags, 128)
    }

    /// Creates a request of this type with an empty payload and a capacity in bytes, header included.
    #[must_use]
    pub fn with_capacity(kind: u16, flags: u16, capacity: usize) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(capacity.max(HEADER_LEN)));
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self(bytes)
    }

    /// Appends bytes without padding, e.g. the header of the protocol.
    pub fn push(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends `length` zero bytes and returns them, for a payload that is serialized elsewhere.
    pub fn push_zeroed(&mut self, length: usize) -> &mut [u8] {
        let start = self.0.len();
        self.0.resize(start + length, 0);
        self.0.get_mut(start..).unwrap_or_default()
    }

    /// Appends an attribute. The value is truncated to 65,531 bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.put_parts(kind, &[value])
    }

    /// Appends an attribute with a zero-terminated string.
    pub fn put_string(&mut self, kind: u16, value: &str) -> &mut Self {
        self.put_parts(kind, &[value.as_bytes(), &[0]])
    }

    /// Appends an attribute whose value is the concatenation of `parts`.
    pub fn put_parts(&mut self, kind: u16, parts: &[&[u8]]) -> &mut Self {
        let attribute = self.begin(kind);
        for part in parts {
            self.0.extend_from_slice(part);
        }
        self.close(attribute)
    }

    /// Appends an attribute with the attributes that `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let attribute = self.open(kind);
        fill(self);
        self.close(attribute)
    }

    /// Begins an attribute with nested attributes; [`close`](Self::close) ends it.
    pub fn open(&mut self, kind: u16) -> Nest {
        self.begin(kind | NLA_F_NESTED)
    }

    /// Ends a nested attribute: sets its length and pads it to a multiple of four bytes.
    pub fn close(&mut self, attribute: Nest) -> &mut Self {
        let Nest(start) = attribute;
        let end = (start + usize::from(u16::MAX)).min(self.0.len());
        self.0.truncate(end);
        self.set(start, u16::try_from(end - start).unwrap_or(u16::MAX).to_ne_bytes());
        self.pad();
        self
    }

    /// Length in bytes, header included.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a message always has a header")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes after the netlink header.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.0.get(HEADER_LEN..).unwrap_or_default()
    }

    /// Capacity in bytes, header included.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Whether the reply is a dump, which ends with `NLMSG_DONE` instead of an acknowledgement.
    #[must_use]
    pub fn is_dump(&self) -> bool {
        self.flags() & NLM_F_DUMP == NLM_F_DUMP
    }

    /// Completes the header, and pads the message.
    pub(crate) fn frame(&mut self, sequence: u32) -> &[u8] {
        let flags = if self.is_dump() { self.flags() } else { self.flags() | NLM_F_ACK };
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.set(0, length.to_ne_bytes());
        self.set(6, flags.to_ne_bytes());
        self.set(8, sequence.to_ne_bytes());
        self.pad();
        &self.0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn begin(&mut self, kind: u16) -> Nest {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; ATTRIBUTE_HEADER_LEN - 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        Nest(start)
    }

    fn flags(&self) -> u16 {
        self.0.get(6..).and_then(|flags| flags.first_chunk()).map_or(0, |flags| u16::from_ne_bytes(*flags))
    }

    fn set<const N: usize>(&mut self, offset: usize, value: [u8; N]) {
        if let Some(field) = self.0.get_mut(offset..).and_then(|bytes| bytes.first_chunk_mut()) {
            *field = value;
        }
    }

    fn pad(&mut self) {
        let end = self.0.len().next_multiple_of(4);
        self.0.resize(end, 0);
    }
}

/// Omits the payload, which may contain a key.
impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Message")
            .field("flags", &self.flags())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// One message of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The message type (`nlmsg_type`).
    pub kind: u16,
    /// `NLM_F_*` flags.
    pub flags: u16,
    /// That of the request; 0 in a notification.
    pub sequence: u32,
    /// The bytes after the netlink header, without padding.
    pub payload: &'a [u8],
}

/// The messages of a datagram, in order. The iterator ends at the first malformed header.
pub fn replies(datagram: &[u8]) -> impl Iterator<Item = Reply<'_>> + use<'_> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (reply, length) = parse(rest)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(reply)
    })
}

fn parse(bytes: &[u8]) -> Option<(Reply<'_>, usize)> {
    let (header, _) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let [a, b, c, d, kind_a, kind_b, flags_a, flags_b, e, f, g, h, ..] = *header;
    let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
    let reply = Reply {
        kind: u16::from_ne_bytes([kind_a, kind_b]),
        flags: u16::from_ne_bytes([flags_a, flags_b]),
        sequence: u32::from_ne_bytes([e, f, g, h]),
        payload: bytes.get(HEADER_LEN..length)?,
    };
    Some((reply, length))
}
