//! Applies the kernel's notifications, and reads the stale parts of the observed state that plans depend on.
//!
//! Cancel-safety: that of a pass.

use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::LogLimit;
use tokio::time::Instant;

use super::reconciler::{RESYNC, RESYNC_AFTER_LOSS, Reconciler};
use crate::kernel::{FilterChanges, KernelError, KernelState};
use crate::model::firewall::{Firewall, GuestFilter, Ruleset, TableState};
use crate::model::ip::{IpChange, RouteChange};
use crate::model::link::{Link, LinkChange};
use crate::model::notification::{LockChange, Notification};
use crate::model::observed::Parts;
use crate::model::tap_lock;

/// How long the tables of other programs are not read again, as a multiple of the time that reading them took.
const FOREIGN_REST: u32 = 10;
const FOREIGN_MIN: Duration = Duration::from_millis(20);
const FOREIGN_MAX: Duration = Duration::from_secs(1);

impl Reconciler {
    /// Applies the notifications that have arrived. Returns whether a plan may depend on one.
    pub(super) fn drain(&mut self) -> bool {
        let Ok(changes) = self.watch.drain() else {
            static LOST: LogLimit = LogLimit::new();
            if let Some(hits) = LOST.hit() {
                tracing::warn!(hits, "lost notifications of the kernel: reading everything again");
            }
            self.stale = Parts::ALL;
            self.may_have_missed = true;
            self.dirty.others = true;
            self.notified.extend(self.kinds.iter().map(|kind| kind.name()));
            return true;
        };
        let mut matters = false;
        for change in changes {
            let kinds = self.kinds.iter().filter(|kind| kind.is_notified(&change, &self.observed));
            self.notified.extend(kinds.map(|kind| kind.name()));
            matters |= self.apply(change);
        }
        matters
    }

    /// Applies a change. Returns whether a plan may depend on it.
    fn apply(&mut self, change: Notification) -> bool {
        if let Notification::Ipv6 { index, on } = change {
            let link = self.observed.link(index).map(|link| Link { ipv6: on, ..link.clone() });
            return link.is_some_and(|link| self.apply(Notification::Link(LinkChange::Seen(link))));
        }
        let link = match &change {
            Notification::Link(LinkChange::Seen(link)) => Some(link.index),
            Notification::Link(LinkChange::Gone(_))
            | Notification::Ipv6 { .. }
            | Notification::Ipv6OfAll
            | Notification::Port(_)
            | Notification::Ip(_)
            | Notification::Lock(_)
            | Notification::Firewall { .. } => None,
        };
        // NICs are planned each time.
        let is_of_nics = match change {
            Notification::Port(_) => !self.interest.network_ports,
            Notification::Lock(_) => true,
            Notification::Link(_)
            | Notification::Ipv6 { .. }
            | Notification::Ipv6OfAll
            | Notification::Ip(_)
            | Notification::Firewall { .. } => false,
        };
        let may_redirect = match &change {
            Notification::Link(change) => self.may_redirect(change),
            Notification::Ip(change) => {
                !matches!(change, IpChange::Forwarding { .. } | IpChange::ForwardingOfAll { .. })
            }
            Notification::Ipv6 { .. }
            | Notification::Ipv6OfAll
            | Notification::Port(_)
            | Notification::Lock(_)
            | Notification::Firewall { .. } => false,
        };
        if may_redirect {
            self.expire_look_ups();
        }
        let matters = match change {
            Notification::Link(change) => {
                let has_routes = self.may_lose_routes(&change);
                self.dirty.others |= has_routes;
                self.observed.apply(change, &self.cache.names) || has_routes
            }
            Notification::Ipv6 { .. } => false,
            Notification::Ipv6OfAll => {
                self.stale.links = true;
                true
            }
            Notification::Port(index) => self.port_changed(index),
            Notification::Ip(change) => {
                self.check_routes(&change);
                self.observed.ip.apply(&change) && self.concerns_plan(&change)
            }
            Notification::Lock(LockChange { tap, lock, is_added }) => {
                let locks = self.observed.firewall.locks.as_mut();
                locks.is_some_and(|locks| tap_lock::change(locks, &tap, lock, is_added))
            }
            Notification::Firewall { ours: true } => {
                self.stale.firewall = true;
                true
            }
            // What has changed, if anything, is known when it has been read.
            Notification::Firewall { ours: false } => return self.foreign_changed(),
        };
        match link.filter(|_| matters) {
            Some(index) => {
                self.dirty.links.insert(index);
            }
            None => self.dirty.others |= matters && !is_of_nics,
        }
        matters
    }

    /// The tables of other programs changed. They may be large and change often: the next read waits.
    fn foreign_changed(&mut self) -> bool {
        self.stale.foreign = true;
        if !self.interest.foreign {
            return false;
        }
        let is_due = Instant::now() >= self.foreign_at;
        if !is_due {
            self.retry_at = Some(self.retry_at.map_or(self.foreign_at, |at| at.min(self.foreign_at)));
        }
        is_due
    }

    /// Plans depend only on ports that are devices of ours. A notification does not contain all of their settings.
    fn port_changed(&mut self, index: u32) -> bool {
        let is_ours = self.observed.link(index).is_some_and(|link| self.observed.owner(link).is_some());
        self.stale.ports |= is_ours;
        is_ours && self.interest.ports()
    }

    /// The kernel does not notify of routes that are removed with their link, or when it is set down.
    fn may_lose_routes(&mut self, change: &LinkChange) -> bool {
        let index = change.index();
        let is_up = match change {
            LinkChange::Seen(link) => link.up,
            LinkChange::Gone(_) => false,
        };
        let may_lose = !is_up && self.observed.link(index).is_some() && self.observed.ip.has_routes(index);
        self.stale.routes |= may_lose;
        may_lose && self.interest.ipv4
    }

    /// The kernel does not notify of routes that are removed with the last address of their link, or with their source
    /// address; and it notifies of the address before it removes them. It holds the lock that a dump of links takes
    /// until they are removed, and routes are read after links. Of a replaced route it does not tell which one it was.
    fn check_routes(&mut self, change: &IpChange) {
        match change {
            IpChange::Address { index, added: false, .. } => {
                self.stale.links |= self.interest.ipv4 && self.observed.ip.has_routes(*index);
            }
            IpChange::Route { change: RouteChange::Replaced, .. } => self.stale.routes = true,
            IpChange::Rule { added: false, .. } => self.stale.routes = true,
            IpChange::Address { .. }
            | IpChange::Forwarding { .. }
            | IpChange::ForwardingOfAll { .. }
            | IpChange::ReversePathFilter
            | IpChange::Route { .. }
            | IpChange::Rule { added: true, .. } => {}
        }
    }

    fn concerns_plan(&self, change: &IpChange) -> bool {
        let index = match change {
            IpChange::Address { index, .. } | IpChange::Forwarding { index, .. } => *index,
            IpChange::ReversePathFilter | IpChange::Route { .. } | IpChange::Rule { .. } => return self.interest.ipv4,
            IpChange::ForwardingOfAll { .. } => return !self.observed.ip.turned_on.is_empty(),
        };
        let is_required = |link| self.observed.owner(link).is_some() || self.cache.names.contains(&link.name);
        self.interest.ipv4 || self.observed.link(index).is_some_and(is_required)
    }

    /// Returns the stale parts that plans depend on.
    pub(super) fn to_read(&self) -> Parts {
        let Parts { links, ports, routes, firewall, foreign } = self.stale;
        Parts {
            links,
            ports: ports && self.interest.ports(),
            routes: routes && self.interest.ipv4,
            // With the links in any case: an earlier process may have left a table.
            firewall: firewall && (links || self.interest.firewall || self.has_table()),
            foreign: foreign && self.interest.foreign && Instant::now() >= self.foreign_at,
        }
    }

    /// Reads the stale parts that plans depend on, and applies the notifications that arrive meanwhile.
    pub(super) async fn refresh(&mut self) -> Result<(), KernelError> {
        let parts = self.to_read();
        if parts == Parts::NONE {
            return Ok(());
        }
        let begin = Instant::now();
        let read = self.run_blocking(move |kernel| kernel.read(parts)).await;
        if parts.foreign {
            let now = Instant::now();
            self.foreign_at = now + (now - begin).saturating_mul(FOREIGN_REST).clamp(FOREIGN_MIN, FOREIGN_MAX);
        }
        if read.is_err() {
            self.stale = Parts::ALL;
            self.resync_at = Instant::now() + RESYNC_AFTER_LOSS;
        }
        self.take(read?, parts);
        self.drain();
        Ok(())
    }

    fn take(&mut self, read: KernelState, parts: Parts) {
        let KernelState { links, is_complete, ip, ports, routes, firewall, foreign } = read;
        self.stale = Parts {
            links: false,
            ports: self.stale.ports && !parts.ports,
            routes: self.stale.routes && !parts.routes && !parts.links,
            firewall: self.stale.firewall && !parts.firewall,
            foreign: self.stale.foreign && !parts.foreign,
        };
        // What was read may differ from the notifications. For ports of NICs that does not matter: NICs are planned
        // each time.
        if links.is_some() || routes.is_some() {
            self.expire_look_ups();
        }
        self.dirty.others |= links.is_some()
            || routes.is_some()
            || firewall.is_some()
            || (ports.is_some() && self.interest.network_ports);
        if let Some(links) = links {
            self.resync_at = Instant::now() + if is_complete { RESYNC } else { RESYNC_AFTER_LOSS };
            self.observed.replace(links, std::mem::take(&mut self.may_have_missed));
        }
        self.observed.ip = ip.unwrap_or_else(|| std::mem::take(&mut self.observed.ip));
        if let Some((routes, rules)) = routes {
            (self.observed.ip.routes, self.observed.ip.rules) = (routes, rules);
        }
        self.observed.ports = ports.unwrap_or_else(|| std::mem::take(&mut self.observed.ports));
        match firewall {
            Some(Ok(Firewall { table: TableState::Unread, .. })) => {
                self.observed.firewall.table = TableState::Unread;
                self.observed.firewall.guest_filter = Some(GuestFilter::Unread);
            }
            Some(Ok(firewall)) => self.observed.firewall = firewall,
            Some(Err(error)) => {
                static UNREADABLE: LogLimit = LogLimit::new();
                if let Some(hits) = UNREADABLE.hit() {
                    tracing::warn!(%error, hits, "cannot read the packet filter");
                }
                // A network that needs the table fails when the table cannot be written either.
                let table = if self.interest.firewall { TableState::Altered } else { TableState::Absent };
                let guest_filter = if self.interest.firewall { GuestFilter::Altered } else { GuestFilter::Absent };
                self.observed.firewall = Firewall { table, guest_filter: Some(guest_filter), ..Firewall::default() };
            }
            None => {}
        }
        match foreign {
            Some(Ok(foreign)) if foreign != *self.observed.foreign => {
                self.observed.foreign = Arc::new(foreign);
                self.dirty.others = true;
            }
            Some(Err(FilterChanges)) => self.stale.foreign = true,
            Some(Ok(_)) | None => {}
        }
        self.stale.firewall |= self.observed.firewall.table == TableState::Unread;
    }

    fn has_table(&self) -> bool {
        let Firewall { table, guest_filter, .. } = &self.observed.firewall;
        !table.has_exactly(&Ruleset::default()) || !matches!(guest_filter, None | Some(GuestFilter::Absent))
    }
}
