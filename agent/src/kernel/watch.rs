//! What the kernel tells of links by itself.
//!
//! The kernel queues a change on this socket before it answers the request that made it. So whoever drains the watch after a
//! request has seen all that the request did.
//!
//! Cancel-safety: what [`Watch::readable`] has received stays for [`Watch::drain`].

use std::future::poll_fn;
use std::io;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};

use super::{KernelError, message, socket};
use crate::model::observed::LinkChange;

/// Room for what the kernel tells while we are busy; it doubles this, up to its own limit (`net.core.rmem_max`).
const BUFFER: u32 = 8 << 20;

/// `ENOBUFS`: the kernel had more to tell than there was room for.
const ENOBUFS: i32 = 105;

/// What one read of the socket gave.
type Received = io::Result<(Vec<u8>, SocketAddr)>;

/// A subscription to the changes of all links.
pub struct Watch {
    socket: TokioSocket,
    received: Option<Received>,
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
        Ok(Self { socket: Self::socket().map_err(KernelError::Open)?, received: None })
    }

    fn socket() -> io::Result<TokioSocket> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        inner.set_rx_buf_sz(BUFFER)?;
        inner.bind(&SocketAddr::new(0, 0))?;
        inner.add_membership(MulticastGroup::Link as u32)?;
        Ok(socket)
    }

    /// Waits until the kernel has something to tell.
    pub async fn readable(&mut self) {
        if self.received.is_none() {
            self.received = Some(poll_fn(|context| self.socket.poll_recv_from_full(context)).await);
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
            // Not by way of the runtime: its word on readiness may be older than what was queued just now.
            match self.received.take().unwrap_or_else(|| self.socket.socket_ref().recv_from_full()) {
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

#[expect(clippy::wildcard_enum_match_arm, reason = "an enum of another crate that is marked as growing")]
fn read(message: &message::Message) -> Option<LinkChange> {
    match &message.payload {
        NetlinkPayload::InnerMessage(inner) => message::read(inner),
        _ => None,
    }
}
