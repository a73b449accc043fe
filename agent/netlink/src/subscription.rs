//! Notifications of multicast groups.
//!
//! The kernel queues a notification before it acknowledges the request that caused it. A process that drains its subscription
//! after a request has therefore seen everything that the request changed.

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
    /// The kernel dropped notifications: the state must be read again.
    #[error("the kernel dropped notifications, because they were not read in time")]
    Overrun,
    /// The socket cannot be read.
    #[error("the netlink socket failed: {0}")]
    Socket(io::Error),
}

/// A subscription to multicast groups of a protocol. Never blocks; its file descriptor becomes readable when notifications are
/// queued.
#[derive(Debug)]
pub struct Subscription {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Subscription {
    /// Subscribes to `groups` in the network namespace of the calling thread. Notifications queue up to `receive_buffer` bytes.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `setsockopt`: `EPROTONOSUPPORT` if the kernel lacks the protocol, `EPERM` without
    /// `CAP_NET_ADMIN`, which a buffer beyond `net.core.rmem_max` needs.
    pub fn open(protocol: Protocol, groups: &[u32], receive_buffer: usize) -> io::Result<Self> {
        let socket = open(protocol, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        set_socket_recv_buffer_size_force(&socket, receive_buffer)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        groups.iter().try_for_each(|group| option::add_membership(socket.as_fd(), *group))?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM_MAX] })
    }

    /// Passes queued notifications to `on_notification`, of at most `limit` datagrams: a process that changes links without a
    /// pause cannot keep the caller here.
    ///
    /// # Errors
    /// [`SubscriptionError`]; the queue has been read up to the limit, unless the socket failed.
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

    /// Whether [`drain`](Self::drain) has something to do. A reactor's notion of readiness may be out of date: the queue may have
    /// been drained since.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is queued, else those of `poll`.
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
