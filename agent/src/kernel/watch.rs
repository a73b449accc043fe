//! What the kernel tells by itself of links, of ports of bridges, of IPv4 and of the packet filter.
//!
//! The kernel queues a change on this socket before it answers the request that made it. So whoever drains the watch after a
//! request has seen all that the request did.
//!
//! Cancel-safety: what [`Watch::readable`] has received stays for [`Watch::drain`].

use std::future::poll_fn;
use std::io;

use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::KernelError;
use super::nft::{Notice, notices};
use super::read::{What, messages};
use super::socket::DATAGRAM;
use crate::model::ip::IpChange;
use crate::model::observed::LinkChange;

/// Room for what the kernel tells while we are busy: some thousand changes.
const BUFFER: usize = 8 << 20;

/// Most datagrams that are taken at once: more than there is room for, so that all is taken that there was at first, and
/// yet somebody who never stops changing links cannot keep us here.
const DRAIN: usize = 16 << 10;

/// `ENOBUFS`: the kernel had more to tell than there was room for.
const ENOBUFS: i32 = 105;

/// `NFNLGRP_NFTABLES`.
const NFTABLES: u32 = 7;

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A link.
    Link(LinkChange),
    /// How the link with this index is as a port.
    Port(u32),
    /// IPv4.
    Ip(IpChange),
    /// A route to one address, which may be ours in the mesh, or in the way of one.
    HostRoute,
    /// Our table of the packet filter; or another's chain.
    Firewall {
        /// It is ours.
        ours: bool,
    },
}

/// A subscription to what changes.
pub struct Watch {
    links: Subscription,
    /// None if the kernel has no packet filter.
    firewall: Option<Subscription>,
}

struct Subscription {
    socket: TokioSocket,
    datagram: Vec<u8>,
    /// What came of receiving a datagram that has not been taken yet.
    received: Option<io::Result<()>>,
}

/// Something was lost: the links must be read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl Watch {
    /// Watches this thread's network namespace.
    ///
    /// # Errors
    /// When there can be no netlink socket.
    pub fn open() -> Result<Self, KernelError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Netconf,
            MulticastGroup::Brvlan,
        ];
        let links = Subscription::open(NETLINK_ROUTE, &groups.map(|group| group as u32));
        let firewall = Subscription::open(NETLINK_NETFILTER, &[NFTABLES]).ok();
        Ok(Self { links: links.map_err(KernelError::Open)?, firewall })
    }

    /// Waits until the kernel has something to tell.
    pub async fn readable(&mut self) {
        let firewall = async {
            match &mut self.firewall {
                Some(firewall) => firewall.readable().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.links.readable() => {}
            () = firewall => {}
        }
    }

    /// Takes all that the kernel has told so far.
    ///
    /// # Errors
    /// When the kernel had more to tell than there was room for.
    pub fn drain(&mut self) -> Result<Vec<Change>, Lost> {
        let mut changes = Vec::new();
        let links = self.links.drain(|datagram| {
            changes.extend(messages(datagram).into_iter().filter_map(|said| match said.what {
                What::Link(change) => Some(Change::Link(change)),
                What::Port(news) => Some(Change::Port(news.index())),
                What::Vlans(index) => Some(Change::Port(index)),
                What::Ip(change) => Some(Change::Ip(change)),
                What::DefaultRoute(_) => Some(Change::Ip(IpChange::Routes)),
                What::HostRoute(_) => Some(Change::HostRoute),
                What::Done | What::Refused(_) | What::Else => None,
            }));
        });
        let mut firewall = Vec::new();
        if let Some(subscription) = &mut self.firewall {
            subscription.drain(|datagram| firewall.extend(notices(datagram)))?;
        }
        links?;
        for (notice, ours) in [(Notice::Ours, true), (Notice::Chain, false)] {
            changes.extend(firewall.contains(&notice).then_some(Change::Firewall { ours }));
        }
        Ok(changes)
    }
}

impl Subscription {
    fn open(protocol: isize, groups: &[u32]) -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocol)?;
        let inner = socket.socket_mut();
        // Beyond `net.core.rmem_max`, which is rarely enough, with the privilege that changing links needs anyway.
        set_socket_recv_buffer_size_force(&*inner, BUFFER)?;
        inner.bind(&SocketAddr::new(0, 0))?;
        groups.iter().try_for_each(|group| inner.add_membership(*group))?;
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM), received: None })
    }

    async fn readable(&mut self) {
        if self.received.is_none() {
            self.datagram.clear();
            let (socket, datagram) = (&self.socket, &mut self.datagram);
            self.received = Some(poll_fn(|context| socket.poll_recv(context, datagram)).await);
        }
    }

    fn drain(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), Lost> {
        let mut lost = false;
        for _ in 0..DRAIN {
            // Not by way of the runtime: its word on readiness may be older than what was queued just now.
            match self.received.take().unwrap_or_else(|| self.receive()) {
                Ok(()) if self.datagram.len() >= DATAGRAM => lost = true,
                Ok(()) => take(&self.datagram),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => lost = true,
                Err(error) => {
                    tracing::error!(error = %error, "cannot read what the kernel tells");
                    return Err(Lost);
                }
            }
        }
        if lost { Err(Lost) } else { Ok(()) }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.datagram.clear();
        self.socket.socket_ref().recv(&mut self.datagram, 0).map(drop)
    }
}
