//! What the kernel tells of links by itself.
//!
//! The kernel queues a change on this socket before it answers the request that made it. So whoever drains the watch after a
//! request has seen all that the request did.
//!
//! Cancel-safety: [`Watch::readable`] takes nothing from the socket.

use std::io;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{KernelError, message, socket};
use crate::model::observed::LinkChange;

/// Room for what the kernel tells while we are busy; it doubles this, up to its own limit (`net.core.rmem_max`).
const BUFFER: u32 = 8 << 20;

/// `ENOBUFS`: the kernel had more to tell than there was room for.
const ENOBUFS: i32 = 105;

/// A subscription to the changes of all links.
pub struct Watch {
    socket: AsyncFd<Socket>,
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
        let socket = Self::socket().and_then(|socket| AsyncFd::with_interest(socket, Interest::READABLE));
        Ok(Self { socket: socket.map_err(KernelError::Open)? })
    }

    fn socket() -> io::Result<Socket> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(BUFFER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(MulticastGroup::Link as u32)?;
        Ok(socket)
    }

    /// Waits until the kernel has something to tell.
    pub async fn readable(&self) {
        match self.socket.readable().await {
            Ok(mut ready) => ready.retain_ready(),
            // Only when the runtime ends.
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes all that the kernel has told so far.
    ///
    /// # Errors
    /// When the kernel had more to tell than there was room for.
    pub fn drain(&mut self) -> Result<Vec<LinkChange>, Lost> {
        let mut changes = Vec::new();
        let mut lost = false;
        loop {
            // The runtime's word on readiness may be older than what was queued just now, hence first without it.
            let socket = self.socket.get_ref();
            let received = match socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.try_io(Interest::READABLE, Socket::recv_from_full)
                }
                received => received,
            };
            match received {
                Ok((datagram, _)) => changes.extend(socket::split(&datagram).iter().filter_map(read)),
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
}

fn read(message: &message::Message) -> Option<LinkChange> {
    match &message.payload {
        NetlinkPayload::InnerMessage(inner) => message::read(inner),
        NetlinkPayload::Done(_) | NetlinkPayload::Error(_) | NetlinkPayload::Noop | NetlinkPayload::Overrun(_) => None,
    }
}
