//! Requests over generic netlink and their answers. As with links, the kernel does the work within the system call that sends the
//! request: there is nothing to wait for.

use std::io;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer};
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};
use zeroize::Zeroizing;

use super::encode::{self, Message};
use super::wire::GENL_ID_CTRL;
use super::{WireGuardError, decode};

/// Longest datagram that the kernel sends: a dump comes in parts of at most 32 KiB.
const DATAGRAM: usize = 64 << 10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The header flag of a dump that changes disturbed.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A socket to speak with one family.
pub(super) struct Generic {
    socket: Socket,
    family: u16,
    sequence: u32,
    /// Read into and overwritten, for there are keys in it.
    buffer: Zeroizing<Vec<u8>>,
}

impl Generic {
    /// Connects with a family, for which the kernel loads a module if it can; nothing if there is none.
    pub(super) fn open(family: &str) -> Result<Option<Self>, WireGuardError> {
        let mut generic = Self::connect().map_err(WireGuardError::Open)?;
        let mut id = None;
        match generic.exchange(encode::family(family), NLM_F_ACK, |body| id = id.or_else(|| decode::family(body))) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(WireGuardError::Family(error)),
        }
        Ok(id.map(|family| Self { family, ..generic }))
    }

    fn connect() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let buffer = Zeroizing::new(Vec::with_capacity(DATAGRAM));
        Ok(Self { socket, family: GENL_ID_CTRL, sequence: 0, buffer })
    }

    /// Has the kernel do something.
    pub(super) fn tell(&mut self, message: Message) -> io::Result<()> {
        self.exchange(message, NLM_F_ACK, |_| {}).map(drop)
    }

    /// Asks for all there is, and gives the body of each message of the answer to `each`. False if changes disturbed the answer.
    pub(super) fn ask(&mut self, message: Message, each: impl FnMut(&[u8])) -> io::Result<bool> {
        self.exchange(message, NLM_F_DUMP, each)
    }

    fn exchange(&mut self, mut message: Message, flags: u16, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkBuffer::new(message.as_mut_slice());
        header.set_message_type(self.family);
        header.set_flags(NLM_F_REQUEST | flags);
        header.set_sequence_number(self.sequence);
        let length = u32::try_from(message.len()).map_err(io::Error::other)?;
        NetlinkBuffer::new(message.as_mut_slice()).set_length(length);
        self.socket.send(&message, 0)?;
        let mut is_whole = true;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut *self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let mut rest = self.buffer.as_slice();
            while let Ok(said) = NetlinkBuffer::new_checked(rest) {
                if said.sequence_number() == self.sequence {
                    is_whole &= said.flags() & NLM_F_DUMP_INTR == 0;
                    match said.message_type() {
                        NLMSG_ERROR | NLMSG_DONE => return ended(said.payload()).map(|()| is_whole),
                        _ => each(said.payload()),
                    }
                }
                let length = usize::try_from(said.length()).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// What the end of an answer says: an `errno`, negative, or 0.
fn ended(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        None | Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}
