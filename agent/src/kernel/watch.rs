//! What the kernel tells by itself of links, of ports of bridges, of IPv4 and of the packet filter.
//!
//! The kernel queues a change on this socket before it answers the request that made it. So whoever drains the watch after a
//! request has seen all that the request did.
//!
//! Cancel-safety: [`Watch::readable`] receives nothing; notifications stay queued for [`Watch::drain`].

use std::io;

use otherix_netlink::{Protocol, Reply, Subscription, SubscriptionError};
use rtnetlink::MulticastGroup;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::KernelError;
use super::nft::{Notice, notice};
use super::read::{What, what};
use crate::model::ip::IpChange;
use crate::model::observed::LinkChange;

/// Room for what the kernel tells while we are busy: some thousand changes.
const BUFFER: usize = 8 << 20;

/// Most datagrams that are taken at once: more than there is room for, so that all is taken that there was at first, and
/// yet somebody who never stops changing links cannot keep us here.
const DRAIN: usize = 16 << 10;

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
    links: AsyncFd<Subscription>,
    /// None if the kernel has no packet filter.
    firewall: Option<AsyncFd<Subscription>>,
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
        let links = subscribe(Protocol::Route, &groups.map(|group| group as u32));
        let firewall = subscribe(Protocol::Netfilter, &[NFTABLES]).ok();
        Ok(Self { links: links.map_err(KernelError::Open)?, firewall })
    }

    /// Waits until the kernel has something to tell.
    pub async fn readable(&mut self) {
        let firewall = async {
            match &mut self.firewall {
                Some(firewall) => readable(firewall).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = readable(&self.links) => {}
            () = firewall => {}
        }
    }

    /// Takes all that the kernel has told so far.
    ///
    /// # Errors
    /// When the kernel had more to tell than there was room for.
    pub fn drain(&mut self) -> Result<Vec<Change>, Lost> {
        let mut changes = Vec::new();
        let links = drain(&mut self.links, |reply| {
            changes.extend(match what(reply) {
                What::Link(change) => Some(Change::Link(change)),
                What::Port(news) => Some(Change::Port(news.index())),
                What::Vlans(index) => Some(Change::Port(index)),
                What::Ip(change) => Some(Change::Ip(change)),
                What::DefaultRoute(_) => Some(Change::Ip(IpChange::Routes)),
                What::HostRoute(_) => Some(Change::HostRoute),
                What::Else => None,
            });
        });
        let mut firewall = Vec::new();
        if let Some(subscription) = &mut self.firewall {
            drain(subscription, |reply| firewall.extend(notice(reply)))?;
        }
        links?;
        for (notice, ours) in [(Notice::Ours, true), (Notice::Chain, false)] {
            changes.extend(firewall.contains(&notice).then_some(Change::Firewall { ours }));
        }
        Ok(changes)
    }
}

#[expect(unsafe_code, reason = "registering a file descriptor requires that it stays open")]
fn subscribe(protocol: Protocol, groups: &[u32]) -> io::Result<AsyncFd<Subscription>> {
    let subscription = Subscription::open(protocol, groups, BUFFER)?;
    // SAFETY: a subscription owns its file descriptor, returns no other, and closes it when it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(subscription, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Waits until notifications are queued. An error is left to [`drain`].
async fn readable(subscription: &AsyncFd<Subscription>) {
    let _left_to_drain = subscription.async_io(Interest::READABLE, Subscription::check_readable).await;
}

fn drain(subscription: &mut AsyncFd<Subscription>, take: impl FnMut(Reply<'_>)) -> Result<(), Lost> {
    subscription.get_mut().drain(DRAIN, take).map_err(|error| {
        if let SubscriptionError::Socket(error) = error {
            tracing::error!(%error, "cannot read notifications of the kernel");
        }
        Lost
    })
}
