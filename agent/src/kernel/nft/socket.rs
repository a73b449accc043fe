//! Requests to the packet filter and their answers; what it tells by itself. Numbers are from linux/netfilter/nfnetlink.h and
//! linux/netfilter/nf_tables.h.

use std::io;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};

use crate::model::firewall::TABLE;

/// Room for the batch of some 20,000 networks.
const BUFFER: usize = 32 << 20;

/// Longest datagram of an answer.
const DATAGRAM: usize = 64 << 10;

/// The first number of a question; those of a batch's messages are below.
const FIRST: u32 = 1 << 31;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// `NFNL_SUBSYS_NFTABLES`, in a message's type.
pub(super) const SUBSYSTEM: u16 = 10 << 8;
const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;
const NFNL_BATCH_GENID: u16 = 1;

/// In the messages of every object, the attribute with its table's name.
const TABLE_NAME: u16 = 1;

/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER: usize = 16;
pub(super) const FAMILY_HEADER: usize = 4;
pub(super) const FAMILY_IPV4: u8 = 2;

/// `ERESTART`: the packet filter is of another generation than the batch is for.
const ERESTART: i32 = 85;

/// Why the packet filter could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(in crate::kernel) enum FilterError {
    /// The kernel's word.
    #[error("{0}")]
    Refused(io::Error),
    /// Others change it all the time.
    #[error("others keep changing it at the same time")]
    Busy,
    /// The socket's.
    #[error("the netlink socket failed: {0}")]
    Socket(#[from] io::Error),
    /// No device has such a name.
    #[error("`{0}` is no name of a device")]
    Name(String),
}

/// A message of an answer: its kind without the subsystem, and its body.
pub(super) struct Part {
    pub(super) kind: u16,
    pub(super) body: Vec<u8>,
}

/// A socket to the packet filter of its network namespace.
pub(super) struct Filter {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Filter {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        set_socket_send_buffer_size_force(&socket, BUFFER)?;
        set_socket_recv_buffer_size_force(&socket, BUFFER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: FIRST, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// The present generation.
    pub(super) fn generation(&mut self) -> Result<u32, FilterError> {
        self.ask(NFT_MSG_GETGEN, NLM_F_ACK, &[0, 0, 0, 0])?;
        let parts = self.answers()?;
        let body = parts.iter().find(|part| part.kind == NFT_MSG_NEWGEN).map(|part| part.body.as_slice());
        let id = body.and_then(|body| attribute(body, NFTA_GEN_ID)?.first_chunk().copied());
        id.map(u32::from_be_bytes).ok_or_else(|| FilterError::Socket(io::Error::other("no generation was told")))
    }

    /// Has a batch carried out if this is still the generation; gives the one that it made.
    pub(super) fn commit(&mut self, batch: &[u8], generation: u32) -> Result<u32, FilterError> {
        self.socket.send(&for_generation(batch, generation), 0)?;
        // It is carried out by now. What was refused has been said before the answer to this comes.
        let now = self.generation()?;
        // A batch that changes nothing makes no generation.
        let next = generation.checked_add(1).unwrap_or(1);
        if now == generation || now == next { Ok(now) } else { Ok(next) }
    }

    /// Asks for all of a kind.
    ///
    /// # Errors
    /// [`FilterError::Busy`] when changes came between.
    pub(super) fn dump(&mut self, kind: u16, body: &[u8]) -> Result<Vec<Part>, FilterError> {
        self.ask(kind, NLM_F_DUMP, body)?;
        self.answers()
    }

    /// Asks for one thing; nothing if it is not there.
    pub(super) fn find(&mut self, kind: u16, body: &[u8]) -> Result<Option<Part>, FilterError> {
        self.ask(kind, NLM_F_ACK, body)?;
        match self.answers() {
            Ok(parts) => Ok(parts.into_iter().next()),
            Err(FilterError::Refused(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1).max(FIRST);
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut message = length.to_ne_bytes().to_vec();
        message.extend((SUBSYSTEM | kind).to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        self.socket.send(&message, 0).map(drop)
    }

    /// Reads up to the end of the last question's answer.
    fn answers(&mut self) -> Result<Vec<Part>, FilterError> {
        let (mut parts, mut failure, mut disturbed) = (Vec::new(), None, false);
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            let mut rest = self.buffer.as_slice();
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                let (kind, payload) = (message.message_type(), message.payload());
                let is_last = message.sequence_number() == self.sequence;
                match kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        if code != 0 {
                            failure.get_or_insert(code.saturating_neg());
                        }
                        if is_last {
                            return match failure {
                                None if disturbed => Err(FilterError::Busy),
                                None => Ok(parts),
                                Some(ERESTART) => Err(FilterError::Busy),
                                Some(code) => Err(FilterError::Refused(io::Error::from_raw_os_error(code))),
                            };
                        }
                    }
                    _ if is_last => {
                        disturbed |= message.flags() & NLM_F_DUMP_INTR != 0;
                        parts.push(Part { kind: kind & 0xff, body: payload.to_vec() });
                    }
                    _ => {}
                }
                let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// The batch with the generation in the message that begins it, and without asking for an answer to each message.
fn for_generation(batch: &[u8], generation: u32) -> Vec<u8> {
    let mut first = true;
    let (mut whole, mut rest) = (Vec::with_capacity(batch.len() + 8), batch);
    while let Some(length) = rest.first_chunk().map(|length| u32::from_ne_bytes(*length)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX).next_multiple_of(4);
        let Some((message, others)) = rest.split_at_checked(length.max(HEADER)) else { break };
        let begin = whole.len();
        whole.extend(message);
        if std::mem::take(&mut first) {
            whole.extend(8_u16.to_ne_bytes());
            whole.extend(NFNL_BATCH_GENID.to_ne_bytes());
            whole.extend(generation.to_be_bytes());
            let length = u32::try_from(whole.len()).unwrap_or(u32::MAX);
            whole.iter_mut().zip(length.to_ne_bytes()).for_each(|(to, from)| *to = from);
        }
        if let Some([low, high]) = whole.get_mut(begin + 6..).and_then(|flags| flags.first_chunk_mut()) {
            let flags = u16::from_ne_bytes([*low, *high]) & !NLM_F_ACK;
            [*low, *high] = flags.to_ne_bytes();
        }
        rest = others;
    }
    whole
}

/// The value of an attribute of a message's body.
pub(super) fn attribute(body: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = NlasIterator::new(body.get(FAMILY_HEADER..)?).map_while(Result::ok);
    attributes.find(|attribute| attribute.kind() & 0x3fff == kind).map(|attribute| attribute.value().to_vec())
}

/// What a datagram tells of the packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Notice {
    /// Our table, or something in it.
    Ours,
    /// Another's chain, which may have a policy.
    Chain,
}

/// What the packet filter tells by itself in a datagram. Others' rules and sets are not our affair.
pub(in crate::kernel) fn notices(datagram: &[u8]) -> Vec<Notice> {
    const NFT_MSG_NEWTABLE: u16 = 0;
    const NFT_MSG_DELCHAIN: u16 = 5;
    let (mut notices, mut rest) = (Vec::new(), datagram);
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let (kind, body) = (message.message_type(), message.payload());
        if kind & 0xff00 == SUBSYSTEM && kind & 0xff != NFT_MSG_NEWGEN {
            let is_ours =
                body.first() == Some(&FAMILY_IPV4) && attribute(body, TABLE_NAME).is_some_and(|name| is_table(&name));
            if is_ours {
                notices.push(Notice::Ours);
            } else if (NFT_MSG_NEWTABLE..=NFT_MSG_DELCHAIN).contains(&(kind & 0xff)) {
                notices.push(Notice::Chain);
            }
        }
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    notices
}

/// Whether a name, ended by a zero, is our table's.
pub(super) fn is_table(name: &[u8]) -> bool {
    name.strip_suffix(&[0]).unwrap_or(name) == TABLE.as_bytes()
}
