//! What the kernel tells of links by itself.
//!
//! The kernel queues a change on this socket before it answers the request that made it. So whoever drains the watch after a
//! request has seen all that the request did.
//!
//! Cancel-safety: what [`Watch::readable`] has received stays for [`Watch::drain`].

use std::future::poll_fn;
use std::io;

use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::KernelError;
use super::read::{What, messages};
use super::socket::DATAGRAM;
use crate::model::observed::LinkChange;

/// Room for what the kernel tells while we are busy: some thousand changes.
const BUFFER: usize = 8 << 20;

/// Most datagrams that are taken at once: more than there is room for, so that all is taken that there was at first, and
/// yet somebody who never stops changing links cannot keep us here.
const DRAIN: usize = 16 << 10;

/// `ENOBUFS`: the kernel had more to tell than there was room for.
const ENOBUFS: i32 = 105;

/// A subscription to the changes of all links.
pub struct Watch {
    socket: TokioSocket,
    datagram: Vec<u8>,
    /// What came of receiving a datagram that has not been taken yet.
    received: Option<io::Result<()>>,
}

/// Something was lost: the links must be read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl Watch {
    /// Watches the links of this thread's network namespace.
    ///
    /// # Errors
    /// When there can be no netlink socket.
    pub fn open() -> Result<Self, KernelError> {
        let socket = Self::socket().map_err(KernelError::Open)?;
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM), received: None })
    }

    fn socket() -> io::Result<TokioSocket> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        // Beyond `net.core.rmem_max`, which is rarely enough, with the privilege that changing links needs anyway.
        set_socket_recv_buffer_size_force(&*inner, BUFFER)?;
        inner.bind(&SocketAddr::new(0, 0))?;
        inner.add_membership(MulticastGroup::Link as u32)?;
        Ok(socket)
    }

    /// Waits until the kernel has something to tell.
    pub async fn readable(&mut self) {
        if self.received.is_none() {
            self.datagram.clear();
            let (socket, datagram) = (&self.socket, &mut self.datagram);
            self.received = Some(poll_fn(|context| socket.poll_recv(context, datagram)).await);
        }
    }

    /// Takes all that the kernel has told so far.
    ///
    /// # Errors
    /// When the kernel had more to tell than there was room for.
    pub fn drain(&mut self) -> Result<Vec<LinkChange>, Lost> {
        let mut changes = Vec::new();
        let mut lost = false;
        for _ in 0..DRAIN {
            // Not by way of the runtime: its word on readiness may be older than what was queued just now.
            match self.received.take().unwrap_or_else(|| self.receive()) {
                Ok(()) if self.datagram.len() >= DATAGRAM => lost = true,
                Ok(()) => changes.extend(messages(&self.datagram).into_iter().filter_map(|said| match said.what {
                    What::Link(change) => Some(change),
                    What::Done | What::Refused(_) | What::Else => None,
                })),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => lost = true,
                Err(error) => {
                    tracing::error!(error = %error, "cannot read what the kernel tells of links");
                    return Err(Lost);
                }
            }
        }
        if lost { Err(Lost) } else { Ok(changes) }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.datagram.clear();
        self.socket.socket_ref().recv(&mut self.datagram, 0).map(drop)
    }
}
