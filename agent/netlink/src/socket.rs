//! Requests to the kernel.
//!
//! A socket uses sequence numbers from 2³¹; those below are for messages that another library framed (see
//! [`Socket::submit`]).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, bind, connect, netlink, recv,
    sendmsg, socket_with,
};
use zeroize::Zeroizing;

use crate::message::{Message, Reply, replies};
use crate::{DATAGRAM_MAX, Refusal, RequestError, option};

/// The lowest sequence number that a socket assigns.
const SEQUENCE_FIRST: u32 = 1 << 31;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Set on the messages of a dump that a concurrent change made inconsistent.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A netlink protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours (`NETLINK_ROUTE`).
    Route,
    /// nftables and conntrack (`NETLINK_NETFILTER`).
    Netfilter,
    /// Families with a name, e.g. WireGuard (`NETLINK_GENERIC`).
    Generic,
}

/// A request that the kernel carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The state changed during the dump, so objects may be missing or duplicated (`NLM_F_DUMP_INTR`).
    pub interrupted: bool,
}

/// A socket that is connected to the kernel, in the network namespace of the thread that opened it.
///
/// After an error of the socket itself, the outcome of the requests is unknown. The socket remains usable: late replies
/// are recognized by their sequence numbers and ignored.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    sequence: u32,
    buffer: Zeroizing<Vec<u8>>,
}

/// A sent request, which is in flight until it has an outcome.
struct PendingRequest {
    sequence: u32,
    interrupted: bool,
    outcome: Option<Result<Completion, Refusal>>,
}

impl Socket {
    /// Opens a socket for a protocol.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `connect`; `EPROTONOSUPPORT` if the kernel lacks the protocol.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let socket = open(protocol, SocketFlags::CLOEXEC)?;
        option::enable_extended_acknowledgements(socket.as_fd())?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        let buffer = Zeroizing::new(vec![0; DATAGRAM_MAX]);
        Ok(Self { socket, sequence: SEQUENCE_FIRST, buffer })
    }

    /// Sets the size of the send and receive buffers beyond `net.core.wmem_max` and `rmem_max`.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`.
    pub fn set_buffers(&self, bytes: usize) -> io::Result<()> {
        set_socket_send_buffer_size_force(&self.socket, bytes)?;
        Ok(set_socket_recv_buffer_size_force(&self.socket, bytes)?)
    }

    /// Sends the messages as one datagram, and returns the outcome of each. The kernel processes them in order; a
    /// refusal does not stop those that follow. `on_reply` receives the data messages with the index of the request
    /// that they answer.
    ///
    /// All replies must fit into the receive buffer (208 KiB by default): send at most 32 messages whose replies are
    /// links.
    ///
    /// # Errors
    /// Those of `sendmsg` and `recv`; `ENOBUFS` if the replies did not fit.
    pub fn exchange(
        &mut self,
        mut messages: Vec<Message>,
        mut on_reply: impl FnMut(usize, Reply<'_>),
    ) -> io::Result<Vec<Result<Completion, Refusal>>> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let mut pending = Vec::with_capacity(messages.len());
        for message in &mut messages {
            let sequence = self.next_sequence();
            message.frame(sequence);
            pending.push(PendingRequest { sequence, interrupted: false, outcome: None });
        }
        let slices: Vec<_> = messages.iter().map(|message| IoSlice::new(message.bytes())).collect();
        self.send(&slices)?;
        self.collect(&mut pending, &mut on_reply, |_| {})?;
        Ok(pending.into_iter().filter_map(|request| request.outcome).collect())
    }

    /// Sends one message. `on_reply` receives the data messages that answer it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn request(
        &mut self,
        message: Message,
        mut on_reply: impl FnMut(Reply<'_>),
    ) -> Result<Completion, RequestError> {
        let outcome = self.exchange(vec![message], |_, reply| on_reply(reply))?.pop();
        Ok(outcome.unwrap_or(Ok(Completion::default()))?)
    }

    /// Sends a datagram of messages that another library framed, with sequence numbers below 2³¹ and without requests
    /// for acknowledgement, then `message`. The kernel processes the datagram before it answers `message`.
    ///
    /// # Errors
    /// [`RequestError::Refused`] with the first refusal of a framed message, else that of `message`;
    /// [`RequestError::Socket`].
    pub fn submit(
        &mut self,
        framed: &[u8],
        mut message: Message,
        mut on_reply: impl FnMut(Reply<'_>),
    ) -> Result<Completion, RequestError> {
        self.send(&[IoSlice::new(framed)])?;
        let sequence = self.next_sequence();
        self.send(&[IoSlice::new(message.frame(sequence))])?;
        let mut pending = [PendingRequest { sequence, interrupted: false, outcome: None }];
        let mut first_refusal = None;
        self.collect(&mut pending, &mut |_, reply| on_reply(reply), |refusal| {
            first_refusal.get_or_insert(refusal);
        })?;
        let [PendingRequest { outcome, .. }] = pending;
        match first_refusal {
            Some(refusal) => Err(refusal.into()),
            None => Ok(outcome.unwrap_or(Ok(Completion::default()))?),
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(SEQUENCE_FIRST);
        self.sequence
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        sendmsg(&self.socket, slices, &mut SendAncillaryBuffer::default(), SendFlags::empty())?;
        Ok(())
    }

    /// Receives until every pending request has an outcome. `on_refusal` receives the refusals of messages that another
    /// library framed.
    fn collect(
        &mut self,
        pending: &mut [PendingRequest],
        on_reply: &mut impl FnMut(usize, Reply<'_>),
        mut on_refusal: impl FnMut(Refusal),
    ) -> io::Result<()> {
        while pending.iter().any(|request| request.outcome.is_none()) {
            let length = receive(&self.socket, &mut self.buffer, RecvFlags::empty())?;
            for reply in replies(self.buffer.get(..length).unwrap_or_default()) {
                let is_end = matches!(reply.kind, NLMSG_ERROR | NLMSG_DONE);
                let request = pending.iter_mut().enumerate().find(|(_, request)| request.sequence == reply.sequence);
                match request {
                    Some((index, request)) => {
                        request.interrupted |= reply.flags & NLM_F_DUMP_INTR != 0;
                        if is_end {
                            let completion = Completion { interrupted: request.interrupted };
                            let refusal = Refusal::parse(&reply, reply.kind == NLMSG_DONE);
                            request.outcome = Some(refusal.map_or(Ok(completion), Err));
                        } else {
                            on_reply(index, reply);
                        }
                    }
                    None if is_end && reply.sequence < SEQUENCE_FIRST => {
                        Refusal::parse(&reply, reply.kind == NLMSG_DONE).into_iter().for_each(&mut on_refusal);
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn open(protocol: Protocol, flags: SocketFlags) -> io::Result<OwnedFd> {
    let protocol = match protocol {
        Protocol::Route => None,
        Protocol::Netfilter => Some(netlink::NETFILTER),
        Protocol::Generic => Some(netlink::GENERIC),
    };
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?)
}

/// Receives a datagram, and returns its length.
///
/// # Errors
/// Those of `recv`; `EMSGSIZE` if the datagram was truncated.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    loop {
        let capacity = buffer.len();
        match recv(socket, &mut *buffer, flags | RecvFlags::TRUNC) {
            Ok((_, length)) if length > capacity => return Err(Errno::MSGSIZE.into()),
            Ok((_, length)) => return Ok(length),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
