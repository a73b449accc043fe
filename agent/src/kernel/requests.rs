//! Requests of rtnetlink, and what their replies contain.

use std::io;
use std::net::Ipv4Addr;

use otherix_netlink::{Completion, Message, Protocol, Refusal, Socket};

pub(crate) use otherix_netlink::RequestError;

use super::read::{Content, PortData, parse};
use crate::model::ip::IpChange;
use crate::model::link::{Link, LinkChange};
use crate::model::route_lookup::RouteLookup;

/// The result of a request.
pub(crate) type RequestResult = Result<ReplyData, RequestError>;

/// The content of the replies to a request.
#[derive(Debug, Default)]
pub(crate) struct ReplyData {
    pub(crate) links: Vec<Link>,
    pub(super) ports: Vec<PortData>,
    pub(super) ip: Vec<IpChange>,
    /// The answers to route lookups, by address.
    pub(super) route_lookups: Vec<(Ipv4Addr, RouteLookup)>,
    /// The dump is inconsistent: objects may be missing.
    pub(super) interrupted: bool,
}

pub(super) struct Requests {
    socket: Socket,
    /// After how many more messages all fail, for tests.
    fails_after: Option<usize>,
}

impl Requests {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(Protocol::Route)?, fails_after: None })
    }

    /// Makes every message after the next `messages` fail, as if the process had been killed.
    pub(super) fn fail_after(&mut self, messages: usize) {
        self.fails_after = Some(messages);
    }

    /// Sends the messages as one datagram, and returns the result of each. The kernel processes them in order, whether
    /// or not one of them fails. At most 32 messages, because the replies must fit into the socket's buffer.
    pub(super) fn exchange(&mut self, messages: Vec<Message>) -> io::Result<Vec<RequestResult>> {
        if self.fails_after.is_none() {
            return self.send(messages);
        }
        let mut results = Vec::with_capacity(messages.len());
        for message in messages {
            let Some(remaining) = self.fails_after.and_then(|messages| messages.checked_sub(1)) else {
                return Err(io::Error::other("failed for a test"));
            };
            self.fails_after = Some(remaining);
            results.extend(self.send(vec![message])?);
        }
        Ok(results)
    }

    pub(super) fn request(&mut self, message: Message) -> RequestResult {
        let result = self.exchange(vec![message])?.pop();
        result.unwrap_or_else(|| Ok(ReplyData::default()))
    }

    /// Like [`Self::request`], but not counted by [`Self::fail_after`]: for requests that change nothing, and whose
    /// number depends on other processes.
    pub(super) fn request_uncounted(&mut self, message: Message) -> RequestResult {
        let result = self.send(vec![message])?.pop();
        result.unwrap_or_else(|| Ok(ReplyData::default()))
    }

    /// Like [`Self::exchange`], but not counted by [`Self::fail_after`].
    pub(super) fn exchange_uncounted(&mut self, messages: Vec<Message>) -> io::Result<Vec<RequestResult>> {
        self.send(messages)
    }

    fn send(&mut self, messages: Vec<Message>) -> io::Result<Vec<RequestResult>> {
        let mut replies: Vec<_> = messages.iter().map(|_| ReplyData::default()).collect();
        let outcomes = self.socket.exchange(messages, |index, reply| {
            if let Some(data) = replies.get_mut(index) {
                data.add(parse(reply));
            }
        })?;
        Ok(outcomes.into_iter().zip(replies).map(|(outcome, data)| result(outcome, data)).collect())
    }
}

fn result(outcome: Result<Completion, Refusal>, data: ReplyData) -> RequestResult {
    let Completion { interrupted } = outcome?;
    Ok(ReplyData { interrupted, ..data })
}

impl ReplyData {
    fn add(&mut self, content: Content) {
        match content {
            Content::Link(LinkChange::Seen(link)) => self.links.push(link),
            Content::Port(data) => self.ports.push(data),
            Content::Ip(change) => self.ip.push(change),
            Content::RouteLookup(to, lookup) => self.route_lookups.push((to, lookup)),
            Content::Link(LinkChange::Gone(_)) | Content::Ipv6 { .. } | Content::Vlans(_) | Content::Other => {}
        }
    }
}
