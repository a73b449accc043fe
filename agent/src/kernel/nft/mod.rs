//! The packet filter: our table `ip otherix`, replaced whole, and what others have in theirs that works against us.
//!
//! Owns its socket and what it wrote last. Never looks for similar rules, and never changes another table. Whether the table is
//! still what was written is not guessed from some of it: right after writing, the kernel's own account of all of it is
//! read, at the very generation that the writing made, and later accounts must have the same digest. A table that this
//! process has not written is not known, and is written anew.

mod account;
mod batch;
mod fib;
mod filter;

use std::io;

use self::account::Account;
use self::filter::{Filter, FilterError};
use crate::model::firewall::{Firewall, Rules, Ruleset};

pub(super) use self::filter::{Notice, notice};

/// How often a batch is made again when somebody else changes the packet filter at the same time.
const ATTEMPTS: u32 = 8;

const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Reads and writes the packet filter.
pub(super) struct Nft {
    /// None if the kernel has no packet filter, or had none when it was asked last.
    filter: Option<Filter>,
    written: Option<Written>,
}

/// What this process wrote last.
struct Written {
    rules: Ruleset,
    /// The generation that it made.
    generation: u32,
    /// The digest of the kernel's account of that generation, once it was read.
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

    /// Replaces our table, atomically; removes it if there is nothing to guard.
    pub(super) fn write(&mut self, rules: &Ruleset) -> Result<(), FilterError> {
        let batch = batch::replace(rules).map_err(FilterError::Name)?;
        self.written = None;
        let mut attempt = 1;
        loop {
            let filter = Self::filter(&mut self.filter)?;
            let generation = filter.generation()?;
            match filter.commit(&batch, generation) {
                Err(FilterError::Busy) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
                Ok(generation) => {
                    self.written = Some(Written { rules: rules.clone(), generation, digest: None });
                    return Ok(());
                }
            }
        }
    }

    /// Reads what there is, if others leave it alone for long enough.
    pub(super) fn read(&mut self) -> Result<Firewall, FilterError> {
        let Account { table, drops, generation } = match Account::read(Self::filter(&mut self.filter)?) {
            Err(FilterError::Busy) => return Ok(Firewall { rules: Rules::Unread, ..Firewall::default() }),
            account => account?,
        };
        let rules = match (table, &mut self.written) {
            (None, _) => Rules::Absent,
            (Some(digest), Some(written)) => {
                if written.digest.is_none() && written.generation == generation {
                    written.digest = Some(digest);
                }
                if written.digest == Some(digest) { Rules::Are(written.rules.clone()) } else { Rules::Altered }
            }
            (Some(_), None) => Rules::Altered,
        };
        let bridged = std::fs::read_to_string(BRIDGE_CALLS).is_ok_and(|on| on.trim() != "0");
        Ok(Firewall { rules, drops, bridged })
    }
}
