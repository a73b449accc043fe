//! Notifications of the kernel: of links, bridge ports, IPv4 and the packet filter.
//!
//! The kernel queues the notifications of a change before it replies to the request for it: draining the watch after a
//! request returns everything that the request changed.
//!
//! Cancel-safety: [`KernelWatch::readable`] receives nothing; notifications stay queued for [`KernelWatch::drain`].

use std::io;

use otherix_netlink::{Protocol, Reply, Subscription, SubscriptionError};
use rtnetlink::MulticastGroup;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::KernelError;
use super::nft::{FilterNotification, parse_notification};
use super::read::{Content, parse};
use super::settings_watch::SettingsWatch;
use crate::model::notification::Notification;

/// Size of the receive buffers, in bytes: some thousand notifications.
const BUFFER: usize = 8 << 20;

/// Most datagrams that one drain receives: more than fit into the buffer, so that it receives all that were queued when
/// it started; limited, so that a program that keeps changing links cannot prevent it from ending.
const DRAIN_DATAGRAMS: usize = 16 << 10;

/// `EPROTONOSUPPORT`: the kernel has no such netlink protocol.
const EPROTONOSUPPORT: i32 = 93;

/// `NFNLGRP_NFTABLES`.
const NFTABLES: u32 = 7;

/// Subscriptions to the kernel's notifications.
pub struct KernelWatch {
    links: AsyncFd<Subscription>,
    /// Absent if the kernel has no packet filter.
    firewall: Option<AsyncFd<Subscription>>,
    /// Absent in a kernel without IPv6, or if it cannot be watched.
    settings: Option<SettingsWatch>,
}

/// Notifications were lost, and everything must be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotificationsLost;

impl KernelWatch {
    /// Subscribes in this thread's network namespace.
    ///
    /// # Errors
    /// [`KernelError::Open`].
    pub fn open() -> Result<Self, KernelError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv4Netconf,
            MulticastGroup::Brvlan,
            MulticastGroup::Ipv6Ifinfo,
        ];
        let links = subscribe(Protocol::Route, &groups.map(|group| group as u32));
        let firewall = match subscribe(Protocol::Netfilter, &[NFTABLES]) {
            Err(error) if error.raw_os_error() == Some(EPROTONOSUPPORT) => None,
            subscribed => Some(subscribed.map_err(KernelError::Open)?),
        };
        Ok(Self { links: links.map_err(KernelError::Open)?, firewall, settings: watch_settings() })
    }

    /// Waits until notifications are queued.
    pub async fn readable(&mut self) {
        let firewall = async {
            match &mut self.firewall {
                Some(firewall) => readable(firewall).await,
                None => std::future::pending().await,
            }
        };
        let settings = async {
            match &self.settings {
                Some(settings) => settings.readable().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = readable(&self.links) => {}
            () = firewall => {}
            () = settings => {}
        }
    }

    /// Returns all queued notifications.
    ///
    /// # Errors
    /// [`NotificationsLost`] if they did not fit into the buffer.
    pub fn drain(&mut self) -> Result<Vec<Notification>, NotificationsLost> {
        let mut changes = Vec::new();
        let links = drain(&mut self.links, |reply| {
            changes.extend(match parse(reply) {
                Content::Link(change) => Some(Notification::Link(change)),
                Content::Ipv6 { index, on } => Some(Notification::Ipv6 { index, on }),
                Content::Port(data) => Some(Notification::Port(data.index())),
                Content::Vlans(index) => Some(Notification::Port(index)),
                Content::Ip(change) => Some(Notification::Ip(change)),
                Content::RouteLookup(..) | Content::Other => None,
            });
        });
        let mut firewall = Vec::new();
        if let Some(subscription) = &mut self.firewall {
            drain(subscription, |reply| firewall.extend(parse_notification(reply)))?;
        }
        links?;
        if self.settings.as_ref().is_some_and(SettingsWatch::drain) {
            changes.push(Notification::Ipv6OfAll);
        }
        for (kind, ours) in [(FilterNotification::Ours, true), (FilterNotification::Foreign, false)] {
            changes.extend(firewall.contains(&kind).then_some(Notification::Firewall { ours }));
        }
        for notification in firewall {
            match notification {
                FilterNotification::Locks(locks) => changes.extend(locks.into_iter().map(Notification::Lock)),
                FilterNotification::Ours | FilterNotification::Foreign => {}
            }
        }
        Ok(changes)
    }
}

/// Without the watch, a change of the setting is noticed by the next resync only.
fn watch_settings() -> Option<SettingsWatch> {
    match SettingsWatch::open() {
        Ok(watch) => Some(watch),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(
                %error, hint = "see `sysctl fs.inotify.max_user_instances`",
                "cannot watch the IPv6 setting of all devices: a change of it is repaired within a minute only"
            );
            None
        }
    }
}

#[expect(unsafe_code, reason = "registering a file descriptor requires that it stays open")]
fn subscribe(protocol: Protocol, groups: &[u32]) -> io::Result<AsyncFd<Subscription>> {
    let subscription = Subscription::open(protocol, groups, BUFFER)?;
    // SAFETY: a subscription owns its file descriptor, returns no other, and closes it when it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(subscription, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Waits until notifications are queued, or there is an error, which [`drain`] returns.
async fn readable(subscription: &AsyncFd<Subscription>) {
    let _returned_by_drain = subscription.async_io(Interest::READABLE, Subscription::check_readable).await;
}

fn drain(subscription: &mut AsyncFd<Subscription>, take: impl FnMut(Reply<'_>)) -> Result<(), NotificationsLost> {
    subscription.get_mut().drain(DRAIN_DATAGRAMS, take).map_err(|error| {
        if let SubscriptionError::Socket(error) = error {
            tracing::error!(%error, "cannot receive notifications of the kernel");
        }
        NotificationsLost
    })
}
