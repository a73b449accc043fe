//! Notifications of multicast groups.
//!
//! The kernel queues a notification before it acknowledges the request that caused it. A process that drains its
//! subscription after a request has therefore seen all changes that the request made.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{RecvFlags, SocketFlags, bind};

use crate::message::{Reply, replies};
use crate::socket::{Protocol, open, receive};
use crate::{DATAGRAM_MAX, option};

/// Why notifications are missing.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    /// The state must be read again.
    #[error("the kernel dropped notifications because they were not read in time")]
    Overrun,
    #[error("the netlink socket failed: {0}")]
    Socket(io::Error),
}

/// A subscription to multicast groups of a protocol. Never blocks; its file descriptor becomes readable when
/// notifications are queued.
#[derive(Debug)]
pub struct Subscription {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Subscription {
    /// Subscribes to `groups` in the network namespace of the calling thread. At most `receive_buffer` bytes of
    /// notifications are queued.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `setsockopt`: `EPROTONOSUPPORT` if the kernel lacks the protocol, `EPERM` without
    /// `CAP_NET_ADMIN`, which a buffer larger than `net.core.rmem_max` requires.
    pub fn open(protocol: Protocol, groups: &[u32], receive_buffer: usize) -> io::Result<Self> {
        let socket = open(protocol, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        set_socket_recv_buffer_size_force(&socket, receive_buffer)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        groups.iter().try_for_each(|group| option::add_membership(socket.as_fd(), *group))?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM_MAX] })
    }

    /// Passes queued notifications to `on_notification`, of at most `limit` datagrams, so that the call ends even if
    /// another process changes links continuously.
    ///
    /// # Errors
    /// [`SubscriptionError`]. After an overrun, the queue has still been read up to the limit.
    pub fn drain(&mut self, limit: usize, mut on_notification: impl FnMut(Reply<'_>)) -> Result<(), SubscriptionError> {
        let mut result = Ok(());
        for _ in 0..limit {
            match receive(&self.socket, &mut self.buffer, RecvFlags::DONTWAIT) {
                Ok(length) => {
                    replies(self.buffer.get(..length).unwrap_or_default()).for_each(&mut on_notification);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_overrun(&error) => result = Err(SubscriptionError::Overrun),
                Err(error) => return Err(SubscriptionError::Socket(error)),
            }
        }
        result
    }

    /// Checks that notifications are queued. A reactor may report readiness after the queue has been drained.
    ///
    /// # Errors
    /// `WouldBlock` if the queue is empty, else those of `poll`.
    pub fn check_readable(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// `ENOBUFS`: the queue was full. `EMSGSIZE`: a datagram was truncated.
fn is_overrun(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOBUFS | Errno::MSGSIZE))
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Subscription {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
