//! Taking in what the kernel tells by itself, and reading what is stale and matters.
//!
//! Cancel-safety: as of the round that it is a part of.

use tokio::time::Instant;

use super::{EVERYTHING, NOTHING, RESYNC, RESYNC_SOON, Reconciler};
use crate::kernel::{Change, KernelError, Parts, Read};
use crate::model::firewall::{Firewall, Rules, Ruleset};
use crate::model::ip::IpChange;
use crate::model::mesh::MESH;
use crate::model::observed::LinkChange;

impl Reconciler {
    /// Takes in what the kernel has told. Says whether that may make a difference to a plan.
    pub(super) fn drain(&mut self) -> bool {
        let Ok(changes) = self.watch.drain() else {
            tracing::warn!("the kernel told more than could be taken in: reading all of it");
            self.stale = EVERYTHING;
            self.missed = true;
            self.news.others = true;
            self.mesh_news = true;
            return true;
        };
        let mut matters = false;
        for change in changes {
            let link = match &change {
                Change::Link(LinkChange::Seen(link)) => Some(link.index),
                Change::Link(LinkChange::Gone(_))
                | Change::Port(_)
                | Change::Ip(_)
                | Change::HostRoute
                | Change::Firewall { .. } => None,
            };
            let is_port = matches!(change, Change::Port(_));
            self.mesh_news |= self.is_of_mesh(&change);
            let one_matters = match change {
                Change::Link(change) => {
                    let is_uplink = self.uplink_changed(change.index());
                    self.news.others |= is_uplink;
                    self.observed.apply(change, &self.planned.names) || is_uplink
                }
                Change::Port(index) => self.port_changed(index),
                Change::Ip(IpChange::Routes) => {
                    self.stale.routes = true;
                    self.interest.nat
                }
                Change::Ip(change) => {
                    self.uplink_address_lost(&change);
                    self.observed.ip.apply(&change) && self.is_concerned(&change)
                }
                Change::HostRoute => false,
                Change::Firewall { ours } => {
                    self.stale.firewall = true;
                    ours || self.interest.nat
                }
            };
            match link.filter(|_| one_matters) {
                Some(index) => {
                    self.news.links.insert(index);
                }
                // NICs are planned each time.
                None => self.news.others |= one_matters && (!is_port || self.interest.of_networks),
            }
            matters |= one_matters;
        }
        matters
    }

    fn is_of_mesh(&self, change: &Change) -> bool {
        let is_mesh = |index| self.observed.mesh().is_some_and(|link| link.index == index);
        match change {
            Change::Link(LinkChange::Seen(link)) => link.name == MESH || is_mesh(link.index),
            Change::Link(LinkChange::Gone(index)) | Change::Ip(IpChange::Address { index, .. }) => is_mesh(*index),
            Change::HostRoute => true,
            Change::Ip(_) | Change::Port(_) | Change::Firewall { .. } => false,
        }
    }

    /// Only how devices of ours are as ports matters, and it is not told whole.
    fn port_changed(&mut self, index: u32) -> bool {
        let matters = self.observed.link(index).is_some_and(|link| self.observed.owner(link).is_some());
        self.stale.ports |= matters;
        matters && self.interest.ports
    }

    /// The kernel does not tell of the routes that go with a link.
    fn uplink_changed(&mut self, index: u32) -> bool {
        let is_uplink = self.observed.ip.uplinks.contains(&index);
        self.stale.routes |= is_uplink;
        is_uplink && self.interest.nat
    }

    /// Nor of those that go with a link's last address; and it tells of the address before they go. Links are read under the lock
    /// that it holds meanwhile, and routes after them.
    fn uplink_address_lost(&mut self, change: &IpChange) {
        if let IpChange::Address { index, there: false, .. } = change {
            self.stale.links |= self.interest.nat && self.observed.ip.uplinks.contains(index);
        }
    }

    fn is_concerned(&self, change: &IpChange) -> bool {
        let index = match change {
            IpChange::Address { index, .. } | IpChange::Forwarding { index, .. } | IpChange::Uplink(index) => *index,
            IpChange::Routes => return self.interest.nat,
        };
        let is_concerned = |link| self.observed.owner(link).is_some() || self.planned.names.contains(&link.name);
        self.interest.nat || self.observed.link(index).is_some_and(is_concerned)
    }

    /// What is to be read anew and matters.
    pub(super) fn to_read(&self) -> Parts {
        let Parts { links, ports, routes, firewall } = self.stale;
        // The packet filter once at the beginning in any case: an earlier agent may have left a table.
        Parts {
            links,
            ports: ports && self.interest.ports,
            routes: routes && self.interest.nat,
            firewall: firewall && (links || self.interest.firewall || self.has_rules()),
        }
    }

    /// Reads what is to be read anew and matters. What the kernel tells meanwhile comes on top of it.
    pub(super) async fn refresh(&mut self) -> Result<(), KernelError> {
        let parts = self.to_read();
        if parts == NOTHING {
            return Ok(());
        }
        let read = self.blocking(move |kernel| kernel.observe(parts)).await;
        if read.is_err() {
            self.stale = EVERYTHING;
            self.resync_at = Instant::now() + RESYNC_SOON;
        }
        let Read { links, complete, ip, ports, uplinks, firewall } = read?;
        self.stale = Parts {
            links: false,
            ports: self.stale.ports && !parts.ports,
            routes: self.stale.routes && !parts.routes && !parts.links,
            firewall: self.stale.firewall && !parts.firewall,
        };
        // What was read may be other than what was told, but for how devices of ours are as ports: NICs are planned each time.
        self.news.others |= links.is_some()
            || uplinks.is_some()
            || firewall.is_some()
            || (ports.is_some() && self.interest.of_networks);
        if let Some(links) = links {
            self.resync_at = Instant::now() + if complete { RESYNC } else { RESYNC_SOON };
            self.observed.replace(links, std::mem::take(&mut self.missed));
        }
        self.observed.ip = ip.unwrap_or_else(|| std::mem::take(&mut self.observed.ip));
        if let Some(read) = uplinks {
            self.observed.ip.uplinks = read.uplinks;
        }
        self.observed.as_ports = ports.unwrap_or_else(|| std::mem::take(&mut self.observed.as_ports));
        match firewall {
            Some(Ok(Firewall { rules: Rules::Unread, .. })) => self.observed.firewall.rules = Rules::Unread,
            Some(Ok(firewall)) => self.observed.firewall = firewall,
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot read the packet filter");
                // Who needs the table is told when it cannot be written either.
                let rules = if self.interest.firewall { Rules::Altered } else { Rules::Absent };
                self.observed.firewall = Firewall { rules, ..Firewall::default() };
            }
            None => {}
        }
        self.stale.firewall |= self.is_unread();
        self.drain();
        Ok(())
    }

    pub(super) fn is_unread(&self) -> bool {
        self.observed.firewall.rules == Rules::Unread
    }

    pub(super) fn has_rules(&self) -> bool {
        !self.observed.firewall.rules.are(&Ruleset::default())
    }
}
