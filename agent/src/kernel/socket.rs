//! Requests and their answers on a socket of our own. The kernel does the work within the system call that sends it, and
//! has answered when that returns: there is nothing to wait for asynchronously.

use std::io;

use rtnetlink::packet_core::NLM_F_DUMP;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::message::Message;
use super::read::{Said, What, messages};
use crate::model::observed::{Link, LinkChange};

/// Longest datagram that the kernel sends: a dump comes in parts of at most 32 KiB.
pub(super) const DATAGRAM: usize = 64 << 10;

/// What a request gave: the links that it was about, if it asked for any.
pub(super) type Answer = Result<Links, RequestError>;

/// Links that the kernel tells of.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) links: Vec<Link>,
    /// Changes came between while they were read, so that one may be missing.
    pub(super) interrupted: bool,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The kernel's word.
    #[error(transparent)]
    Refused(io::Error),
    /// The socket's.
    #[error("the netlink socket failed: {0}")]
    Socket(#[from] io::Error),
}

pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    /// How many more messages are sent, for tests.
    fuse: Option<usize>,
}

/// A request that has no answer yet.
struct Asked {
    sequence: u32,
    /// The answer ends with a message of its own.
    has_end: bool,
    answer: Answer,
    open: bool,
}

impl Requests {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM), fuse: None })
    }

    /// From now on sends only so many messages, and refuses all others, as if the process had been killed.
    pub(super) fn set_fuse(&mut self, messages: usize) {
        self.fuse = Some(messages);
    }

    /// Sends the messages as one datagram, which the kernel works through in order whether or not one of them fails, and
    /// gives what it answered to each. What it answers must fit into the socket's buffer: 32 messages do.
    pub(super) fn exchange(&mut self, messages: Vec<Message>) -> io::Result<Vec<Answer>> {
        let mut datagram = Vec::new();
        let mut asked = Vec::with_capacity(messages.len());
        for mut message in messages {
            if let Some(left) = &mut self.fuse {
                *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the fuse has blown"))?;
            }
            asked.push(self.write(&mut message, &mut datagram));
            if self.fuse.is_some() {
                self.converse(&mut datagram, &mut asked)?;
            }
        }
        self.converse(&mut datagram, &mut asked)?;
        Ok(asked.into_iter().map(|asked| asked.answer).collect())
    }

    pub(super) fn request(&mut self, message: Message) -> Answer {
        let answer = self.exchange(vec![message])?.pop();
        answer.unwrap_or_else(|| Ok(Links::default()))
    }

    fn write(&mut self, message: &mut Message, datagram: &mut Vec<u8>) -> Asked {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        message.header.sequence_number = self.sequence;
        message.finalize();
        let begin = datagram.len();
        datagram.resize(begin + message.buffer_len().next_multiple_of(4), 0);
        if let Some(space) = datagram.get_mut(begin..) {
            message.serialize(space);
        }
        let has_end = message.header.flags & NLM_F_DUMP == NLM_F_DUMP || !super::message::asks_for_link(message);
        Asked { sequence: self.sequence, has_end, answer: Ok(Links::default()), open: true }
    }

    /// Sends what is written, and reads until everything that was asked is answered.
    fn converse(&mut self, datagram: &mut Vec<u8>, asked: &mut [Asked]) -> io::Result<()> {
        if datagram.is_empty() {
            return Ok(());
        }
        self.socket.send(datagram, 0)?;
        datagram.clear();
        while asked.iter().any(|asked| asked.open) {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for said in messages(&self.buffer) {
                if let Some(asked) = asked.iter_mut().find(|asked| asked.sequence == said.sequence) {
                    asked.take(said);
                }
            }
        }
        Ok(())
    }
}

impl Asked {
    /// Adds a message to the answer.
    fn take(&mut self, said: Said) {
        let Said { sequence: _, interrupted, what } = said;
        if let Ok(links) = &mut self.answer {
            links.interrupted |= interrupted;
        }
        match what {
            What::Done => self.open = false,
            What::Refused(code) => {
                self.answer = Err(RequestError::Refused(io::Error::from_raw_os_error(code)));
                self.open = false;
            }
            What::Link(LinkChange::Seen(link)) => {
                if let Ok(links) = &mut self.answer {
                    links.links.push(link);
                }
                self.open = self.has_end;
            }
            What::Link(LinkChange::Gone(_)) | What::Else => self.open &= self.has_end,
        }
    }
}
