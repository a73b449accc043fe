//! Requests and their answers on a socket of our own. The kernel does the work within the system call that sends it, and
//! has answered when that returns: there is nothing to wait for asynchronously.

use std::io;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NetlinkBuffer, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::message::Message;

/// The header flag of a dump that changes disturbed, so that it may lack a link (linux/netlink.h).
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The kernel's word.
    #[error(transparent)]
    Refused(io::Error),
    /// The socket's.
    #[error("the netlink socket failed: {0}")]
    Socket(#[from] io::Error),
    /// A dump that was disturbed.
    #[error("the links changed while they were read")]
    Interrupted,
}

pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
}

impl Requests {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends the messages as one datagram, which the kernel works through in order whether or not one of them fails, and
    /// gives what it answered to each.
    pub(super) fn exchange<const N: usize>(
        &mut self,
        mut messages: [Message; N],
    ) -> io::Result<[Result<Vec<RouteNetlinkMessage>, RequestError>; N]> {
        let mut datagram = Vec::new();
        let mut pending = [(); N].map(|()| (0, 0));
        for (message, (sequence, flags)) in messages.iter_mut().zip(&mut pending) {
            self.sequence = self.sequence.wrapping_add(1);
            message.header.sequence_number = self.sequence;
            (*sequence, *flags) = (self.sequence, message.header.flags);
            message.finalize();
            let begin = datagram.len();
            datagram.resize(begin + message.buffer_len().next_multiple_of(4), 0);
            if let Some(space) = datagram.get_mut(begin..) {
                message.serialize(space);
            }
        }
        self.socket.send(&datagram, 0)?;
        let mut answers = [(); N].map(|()| Ok(Vec::new()));
        let mut open = N;
        while open > 0 {
            let (answer, _) = self.socket.recv_from_full()?;
            for message in split(&answer) {
                let number = message.header.sequence_number;
                let found = answers.iter_mut().zip(&pending).find(|(_, (sequence, _))| *sequence == number);
                if let Some((answer, (_, flags))) = found {
                    open -= usize::from(take(answer, message, *flags));
                }
            }
        }
        Ok(answers)
    }

    pub(super) fn request(&mut self, message: Message) -> Result<Vec<RouteNetlinkMessage>, RequestError> {
        let [answer] = self.exchange([message])?;
        answer
    }
}

/// Adds a message to an answer, and says whether it was the last of it.
#[expect(clippy::wildcard_enum_match_arm, reason = "an enum of another crate that is marked as growing")]
fn take(answer: &mut Result<Vec<RouteNetlinkMessage>, RequestError>, message: Message, asked: u16) -> bool {
    let interrupted = message.header.flags & NLM_F_DUMP_INTR != 0;
    let dump = asked & NLM_F_DUMP == NLM_F_DUMP;
    match message.payload {
        NetlinkPayload::Error(error) => {
            if error.code.is_some() {
                *answer = Err(RequestError::Refused(error.to_io()));
            }
            true
        }
        NetlinkPayload::Done(_) => true,
        NetlinkPayload::InnerMessage(inner) => {
            if dump && interrupted {
                *answer = Err(RequestError::Interrupted);
            } else if let Ok(messages) = answer {
                messages.push(inner);
            }
            !dump && asked & NLM_F_ACK == 0
        }
        _ => false,
    }
}

/// The messages in a datagram. One that cannot be read is left out: it is about a device of a kind that is newer than the
/// netlink library.
pub(super) fn split(datagram: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while let Ok(buffer) = NetlinkBuffer::new_checked(rest) {
        let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX);
        let Some(bytes) = rest.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        match Message::deserialize(bytes) {
            Ok(message) => messages.push(message),
            Err(error) => tracing::warn!(error = %error, "a netlink message cannot be read"),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}
