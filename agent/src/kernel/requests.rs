//! Requests of rtnetlink, and what their replies contain.

use std::io;
use std::net::Ipv4Addr;

use otherix_netlink::{Completion, Message, Protocol, Refusal, Socket};

pub(crate) use otherix_netlink::RequestError;

use super::read::{Content, HostRoute, PortData, parse};
use crate::model::ip::IpChange;
use crate::model::link::{Link, LinkChange};

/// The outcome of a request.
pub(crate) type Answer = Result<ReplyData, RequestError>;

/// The content of the replies to a request.
#[derive(Debug, Default)]
pub(crate) struct ReplyData {
    pub(crate) links: Vec<Link>,
    pub(super) ports: Vec<PortData>,
    pub(super) ip: Vec<IpChange>,
    /// Routes of the mesh: link index and address of the node.
    pub(super) mesh_routes: Vec<(u32, Ipv4Addr)>,
    /// The dump is inconsistent: objects may be missing.
    pub(super) interrupted: bool,
}

pub(super) struct Requests {
    socket: Socket,
    /// How many more messages are sent, for tests.
    fuse: Option<usize>,
}

impl Requests {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(Protocol::Route)?, fuse: None })
    }

    /// From now on sends only so many messages, and refuses all others, as if the process had been killed.
    pub(super) fn set_fuse(&mut self, messages: usize) {
        self.fuse = Some(messages);
    }

    /// Sends the messages as one datagram, and returns the outcome of each. The kernel processes them in order, whether
    /// or not one of them fails. At most 32 messages, for the replies must fit into the socket's buffer.
    pub(super) fn exchange(&mut self, messages: Vec<Message>) -> io::Result<Vec<Answer>> {
        if self.fuse.is_none() {
            return self.send(messages);
        }
        let mut answers = Vec::with_capacity(messages.len());
        for message in messages {
            self.fuse = self.fuse.and_then(|left| left.checked_sub(1));
            if self.fuse.is_none() {
                self.fuse = Some(0);
                return Err(io::Error::other("the fuse has blown"));
            }
            answers.extend(self.send(vec![message])?);
        }
        Ok(answers)
    }

    pub(super) fn request(&mut self, message: Message) -> Answer {
        let answer = self.exchange(vec![message])?.pop();
        answer.unwrap_or_else(|| Ok(ReplyData::default()))
    }

    /// Like [`Self::request`], but not counted by the fuse: for requests that depend on what other processes do, and
    /// change nothing.
    pub(super) fn ask(&mut self, message: &Message) -> Answer {
        let answer = self.send(vec![message.clone()])?.pop();
        answer.unwrap_or_else(|| Ok(ReplyData::default()))
    }

    fn send(&mut self, messages: Vec<Message>) -> io::Result<Vec<Answer>> {
        let mut replies: Vec<_> = messages.iter().map(|_| ReplyData::default()).collect();
        let outcomes = self.socket.exchange(messages, |index, reply| {
            if let Some(data) = replies.get_mut(index) {
                data.add(parse(reply));
            }
        })?;
        Ok(outcomes.into_iter().zip(replies).map(|(outcome, data)| answer(outcome, data)).collect())
    }
}

fn answer(outcome: Result<Completion, Refusal>, data: ReplyData) -> Answer {
    let Completion { interrupted } = outcome?;
    Ok(ReplyData { interrupted, ..data })
}

impl ReplyData {
    fn add(&mut self, content: Content) {
        match content {
            Content::Link(LinkChange::Seen(link)) => self.links.push(link),
            Content::Port(data) => self.ports.push(data),
            Content::Ip(change) => self.ip.push(change),
            Content::DefaultRoute(uplinks) => self.ip.extend(uplinks.into_iter().map(IpChange::Uplink)),
            Content::HostRoute(HostRoute { index, to, ours: true }) => self.mesh_routes.push((index, to)),
            Content::HostRoute(_) | Content::Link(LinkChange::Gone(_)) | Content::Vlans(_) | Content::Other => {}
        }
    }
}
