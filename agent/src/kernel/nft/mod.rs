//! The packet filter: our table `ip otherix`, replaced as a whole, and what other tables contain that concerns us.
//!
//! Owns its socket and what it wrote last. Never looks for similar rules, and never changes another table. To find out
//! whether the table is still what was written, all of it is read back right after writing, at the generation that the
//! write made, and its digest is compared with that of later reads. A table that this process has not written is
//! written again.

mod account;
mod batch;
mod fib;
mod filter;

use std::io;

use self::account::Account;
use self::filter::{Filter, FilterError};
use crate::model::firewall::{Firewall, Ruleset, TableState};

pub(super) use self::filter::{Notice, notice};

/// How often a batch is repeated when another program changes the packet filter at the same time.
const ATTEMPTS: u32 = 8;

const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

pub(super) struct Nft {
    /// Absent if the kernel had no packet filter when it was last used.
    filter: Option<Filter>,
    written: Option<Written>,
}

/// What this process wrote last.
struct Written {
    ruleset: Ruleset,
    /// The generation that the write made.
    generation: u32,
    /// The digest of the table at that generation, once it was read.
    digest: Option<[u8; 32]>,
}

impl Nft {
    pub(super) fn open() -> Self {
        let filter = Filter::open().inspect_err(|error| tracing::warn!(%error, "no packet filter"));
        Self { filter: filter.ok(), written: None }
    }

    fn filter(filter: &mut Option<Filter>) -> io::Result<&mut Filter> {
        match filter {
            Some(filter) => Ok(filter),
            None => Ok(filter.insert(Filter::open()?)),
        }
    }

    /// Replaces our table atomically; removes it if it is not needed.
    pub(super) fn write(&mut self, ruleset: &Ruleset) -> Result<(), FilterError> {
        let batch = batch::replace(ruleset).map_err(FilterError::Name)?;
        self.written = None;
        let mut attempt = 1;
        loop {
            let filter = Self::filter(&mut self.filter)?;
            let generation = filter.generation()?;
            match filter.commit(&batch, generation) {
                Err(FilterError::Busy) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
                Ok(generation) => {
                    self.written = Some(Written { ruleset: ruleset.clone(), generation, digest: None });
                    return Ok(());
                }
            }
        }
    }

    /// Reads the state of our table, unless other programs change the packet filter too often, and what concerns us of
    /// others.
    pub(super) fn read(&mut self) -> Result<Firewall, FilterError> {
        let Account { table, drops, generation } = match Account::read(Self::filter(&mut self.filter)?) {
            Err(FilterError::Busy) => return Ok(Firewall { table: TableState::Unread, ..Firewall::default() }),
            account => account?,
        };
        let table = match (table, &mut self.written) {
            (None, _) => TableState::Absent,
            (Some(digest), Some(written)) => {
                if written.digest.is_none() && written.generation == generation {
                    written.digest = Some(digest);
                }
                if written.digest == Some(digest) {
                    TableState::Holds(written.ruleset.clone())
                } else {
                    TableState::Altered
                }
            }
            (Some(_), None) => TableState::Altered,
        };
        let bridged = std::fs::read_to_string(BRIDGE_CALLS).is_ok_and(|on| on.trim() != "0");
        Ok(Firewall { table, drops, bridged })
    }
}
