//! Requests and their answers on a socket of our own. The kernel does the work within the system call that sends it, and
//! has answered when that returns: there is nothing to wait for asynchronously.

use std::io;
use std::net::Ipv4Addr;

use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::message::Message;
use super::read::{HostRoute, PortNews, Said, What, messages};
use crate::model::ip::IpChange;
use crate::model::observed::{Link, LinkChange};

/// Longest datagram that the kernel sends: a dump comes in parts of at most 32 KiB.
pub(super) const DATAGRAM: usize = 64 << 10;

/// Bytes of a message's header.
const HEADER: usize = 16;

/// What a request gave: what it asked for, if it asked for something.
pub(super) type Answer = Result<Told, RequestError>;

/// What the kernel tells when it is asked.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) links: Vec<Link>,
    pub(super) ports: Vec<PortNews>,
    pub(super) ip: Vec<IpChange>,
    /// Routes of ours in the mesh, by which link and to which node.
    pub(super) mesh_routes: Vec<(u32, Ipv4Addr)>,
    /// Changes came between while it was told, so that something may be missing.
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
        for message in messages {
            if let Some(left) = &mut self.fuse {
                *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the fuse has blown"))?;
            }
            asked.push(self.write(&message, &mut datagram));
            if self.fuse.is_some() {
                self.converse(&mut datagram, &mut asked)?;
            }
        }
        self.converse(&mut datagram, &mut asked)?;
        Ok(asked.into_iter().map(|asked| asked.answer).collect())
    }

    pub(super) fn request(&mut self, message: Message) -> Answer {
        let answer = self.exchange(vec![message])?.pop();
        answer.unwrap_or_else(|| Ok(Told::default()))
    }

    /// Asks beside the fuse: whether it is asked depends on what others do, and it changes nothing.
    pub(super) fn ask(&mut self, message: &Message) -> Answer {
        let mut datagram = Vec::new();
        let mut asked = [self.write(message, &mut datagram)];
        self.converse(&mut datagram, &mut asked)?;
        let [Asked { answer, .. }] = asked;
        answer
    }

    fn write(&mut self, message: &Message, datagram: &mut Vec<u8>) -> Asked {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let Message { kind, flags, body } = message;
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        datagram.extend(length.to_ne_bytes());
        datagram.extend(kind.to_ne_bytes());
        datagram.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        datagram.extend(self.sequence.to_ne_bytes());
        datagram.extend(0_u32.to_ne_bytes());
        datagram.extend(body);
        datagram.resize(datagram.len().next_multiple_of(4), 0);
        let has_end = flags & NLM_F_DUMP == NLM_F_DUMP || !message.asks_for_link();
        Asked { sequence: self.sequence, has_end, answer: Ok(Told::default()), open: true }
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
        if let Ok(told) = &mut self.answer {
            told.interrupted |= interrupted;
        }
        match what {
            What::Done => self.open = false,
            What::Refused(code) => {
                self.answer = Err(RequestError::Refused(io::Error::from_raw_os_error(code)));
                self.open = false;
            }
            What::Link(LinkChange::Seen(link)) => {
                if let Ok(told) = &mut self.answer {
                    told.links.push(link);
                }
                self.open = self.has_end;
            }
            What::Port(news) => self.answer.iter_mut().for_each(|told| told.ports.push(news.clone())),
            What::Ip(change) => self.answer.iter_mut().for_each(|told| told.ip.push(change.clone())),
            What::DefaultRoute(uplinks) => {
                let changes = uplinks.iter().copied().map(IpChange::Uplink);
                self.answer.iter_mut().for_each(|told| told.ip.extend(changes.clone()));
            }
            What::HostRoute(HostRoute { index, to, ours }) => {
                self.answer.iter_mut().filter(|_| ours).for_each(|told| told.mesh_routes.push((index, to)));
            }
            What::Link(LinkChange::Gone(_)) | What::Vlans(_) | What::Else => self.open &= self.has_end,
        }
    }
}
