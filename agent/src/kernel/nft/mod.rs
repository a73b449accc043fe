//! The packet filter: our tables, which are replaced as a whole, and what is relevant of other tables, which are never
//! changed. `otherix` has the rules of single networks; `otherix_guests` is the same for all of them.
//!
//! To detect changes of our tables, their digest is taken right after a write, at the generation of that write, and
//! compared with that of later reads. Tables that this process has not written count as altered. The locks of taps in
//! the guest filter are no part of the digest: they are read, and changed one by one.
//!
//! A kernel may lack the packet filter of ARP, IPv6 or bridges: then there is no table of that family.

mod batch;
mod expression;
mod filter;
mod foreign;
mod snapshot;
mod tables;

use std::io;

use self::filter::FilterSocket;
use self::snapshot::{FilterSnapshot, TablesDigest};
use self::tables::{FAMILY_ARP, FAMILY_BRIDGE, FAMILY_IPV4, FAMILY_IPV6, family_name};
use crate::model::filter::ForeignFilter;
use crate::model::firewall::{Firewall, GuestFilter, Ruleset, TableState};
use crate::model::tap_lock::TapLocks;

pub(super) use self::filter::{FilterError, FilterNotification, parse_notification};

/// How often a write is tried when other programs change the packet filter at the same time.
const ATTEMPTS: u32 = 8;

const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

pub(super) struct Nft {
    /// `None` if the kernel had no packet filter when it was last used.
    socket: Option<FilterSocket>,
    networks: Option<WrittenTables<Ruleset>>,
    guests: Option<WrittenTables<()>>,
    /// The families that the kernel has a packet filter for.
    families: Vec<u8>,
}

/// Tables as this process wrote them last.
struct WrittenTables<Content> {
    content: Content,
    /// The generation of the write.
    generation: u32,
    /// The digest of the tables at that generation, once they have been read.
    digest: TablesDigest,
}

impl<Content> WrittenTables<Content> {
    const fn new(content: Content, generation: u32) -> Self {
        Self { content, generation, digest: None }
    }

    /// Returns the content of the tables with this digest, read at this generation, if it is as it was written.
    fn matching(written: &mut Option<Self>, current: [u8; 32], generation: u32) -> Option<&Content> {
        let Self { content, generation: written_at, digest } = written.as_mut()?;
        if digest.is_none() && *written_at == generation {
            *digest = Some(current);
        }
        (*digest == Some(current)).then_some(content)
    }
}

impl Nft {
    pub(super) fn open() -> Self {
        let socket = FilterSocket::open().inspect_err(|error| tracing::warn!(%error, "no packet filter"));
        let families = vec![FAMILY_IPV4, FAMILY_ARP, FAMILY_IPV6, FAMILY_BRIDGE];
        Self { socket: socket.ok(), networks: None, guests: None, families }
    }

    fn opened(socket: &mut Option<FilterSocket>) -> io::Result<&mut FilterSocket> {
        match socket {
            Some(socket) => Ok(socket),
            None => Ok(socket.insert(FilterSocket::open()?)),
        }
    }

    /// Replaces the tables with the rules of networks atomically; removes them if they are not needed.
    pub(super) fn write(&mut self, ruleset: &Ruleset) -> Result<(), FilterError> {
        self.networks = None;
        let generation = self.replace(|families| batch::replace(ruleset, families).map_err(FilterError::Name))?;
        self.networks = Some(WrittenTables::new(ruleset.clone(), generation));
        Ok(())
    }

    /// Replaces the guest filter atomically, with these locks, or removes it.
    pub(super) fn write_guest_filter(&mut self, locks: Option<&TapLocks>) -> Result<(), FilterError> {
        self.guests = None;
        let generation = self.replace(|families| Ok(batch::guests::replace(families, locks)))?;
        self.guests = Some(WrittenTables::new((), generation));
        Ok(())
    }

    /// Removes locks of the guest filter and adds others, atomically.
    pub(super) fn change_locks(&mut self, removed: &TapLocks, added: &TapLocks) -> Result<(), FilterError> {
        self.commit(&batch::locks::change(removed, added)).map(drop)
    }

    /// Commits the batch for the families that the kernel supports. Returns the generation of the write.
    fn replace(&mut self, encode: impl Fn(&[u8]) -> Result<Vec<u8>, FilterError>) -> Result<u32, FilterError> {
        match self.commit(&encode(&self.families)?) {
            Err(error) if error.is_unsupported() && self.find_families() => self.commit(&encode(&self.families)?),
            committed => committed,
        }
    }

    /// Finds out which families the kernel has a packet filter for. Returns whether that is news.
    fn find_families(&mut self) -> bool {
        let all = std::mem::take(&mut self.families);
        let mut has = |family: &u8| {
            // Any other error says nothing about the family.
            *family == FAMILY_IPV4
                || !self.commit(&batch::guests::probe(*family)).is_err_and(|error| error.is_unsupported())
        };
        let (supported, missing): (Vec<_>, Vec<_>) = all.into_iter().partition(|family| has(family));
        if !missing.is_empty() {
            let families: Vec<_> = missing.iter().map(|family| family_name(*family)).collect();
            let families = families.join(", ");
            tracing::warn!(families, "this kernel has no nftables in some families: guests are not filtered there");
        }
        self.families = supported;
        !missing.is_empty()
    }

    fn commit(&mut self, batch: &[u8]) -> Result<u32, FilterError> {
        let mut attempt = 1;
        loop {
            let socket = Self::opened(&mut self.socket)?;
            let generation = socket.generation()?;
            match socket.commit(batch, generation) {
                Err(FilterError::Busy) if attempt < ATTEMPTS => attempt += 1,
                committed => return committed,
            }
        }
    }

    /// Reads what other programs have that may prevent our networks from working.
    ///
    /// # Errors
    /// [`FilterError::Busy`] if other programs change it too often.
    pub(super) fn read_foreign(&mut self) -> Result<ForeignFilter, FilterError> {
        foreign::read(Self::opened(&mut self.socket)?)
    }

    /// Reads the state of our tables. If other programs change the packet filter too
    /// often, the states are [`TableState::Unread`] and [`GuestFilter::Unread`].
    pub(super) fn read(&mut self) -> Result<Firewall, FilterError> {
        let snapshot = FilterSnapshot::read(Self::opened(&mut self.socket)?);
        let FilterSnapshot { networks, guests, locks, generation } = match snapshot {
            Err(FilterError::Busy) => return Ok(Firewall::unread()),
            snapshot => snapshot?,
        };
        let table = networks.map_or(TableState::Absent, |digest| {
            let written = WrittenTables::matching(&mut self.networks, digest, generation);
            written.map_or(TableState::Altered, |ruleset| TableState::Holds(ruleset.clone()))
        });
        let guest_filter = guests.map_or(GuestFilter::Absent, |digest| {
            let written = WrittenTables::matching(&mut self.guests, digest, generation);
            written.map_or(GuestFilter::Altered, |()| GuestFilter::Intact)
        });
        let bridged = std::fs::read_to_string(BRIDGE_CALLS).is_ok_and(|on| on.trim() != "0");
        let locks = Some(locks).filter(|_| self.families.contains(&FAMILY_BRIDGE));
        Ok(Firewall { table, guest_filter: Some(guest_filter), locks, bridged })
    }
}
