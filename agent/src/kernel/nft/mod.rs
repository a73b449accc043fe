//! The packet filter: our table `ip otherix`, which is replaced as a whole, and what is relevant of other tables, which
//! are never changed.
//!
//! To detect changes of our table, its digest is taken right after a write, at the generation of that write, and
//! compared with that of later reads. A table that this process has not written counts as altered.

mod batch;
mod fib;
mod filter;
mod snapshot;

use std::io;

use self::filter::{FilterError, FilterSocket};
use self::snapshot::FilterSnapshot;
use crate::model::firewall::{Firewall, Ruleset, TableState};

pub(super) use self::filter::{FilterNotification, parse_notification};

/// How often a write is tried when other programs change the packet filter at the same time.
const ATTEMPTS: u32 = 8;

const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

pub(super) struct Nft {
    /// `None` if the kernel had no packet filter when it was last used.
    socket: Option<FilterSocket>,
    written: Option<WrittenTable>,
}

/// The table as this process wrote it last.
struct WrittenTable {
    ruleset: Ruleset,
    /// The generation of the write.
    generation: u32,
    /// The digest of the table at that generation, once it has been read.
    digest: Option<[u8; 32]>,
}

impl Nft {
    pub(super) fn open() -> Self {
        let socket = FilterSocket::open().inspect_err(|error| tracing::warn!(%error, "no packet filter"));
        Self { socket: socket.ok(), written: None }
    }

    fn opened(socket: &mut Option<FilterSocket>) -> io::Result<&mut FilterSocket> {
        match socket {
            Some(socket) => Ok(socket),
            None => Ok(socket.insert(FilterSocket::open()?)),
        }
    }

    /// Replaces our table atomically; removes it if it is not needed.
    pub(super) fn write(&mut self, ruleset: &Ruleset) -> Result<(), FilterError> {
        let batch = batch::replace(ruleset).map_err(FilterError::Name)?;
        self.written = None;
        let mut attempt = 1;
        loop {
            let socket = Self::opened(&mut self.socket)?;
            let generation = socket.generation()?;
            match socket.commit(&batch, generation) {
                Err(FilterError::Busy) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
                Ok(generation) => {
                    self.written = Some(WrittenTable { ruleset: ruleset.clone(), generation, digest: None });
                    return Ok(());
                }
            }
        }
    }

    /// Reads the state of our table, and what is relevant of others. If other programs change the packet filter too
    /// often, the state is [`TableState::Unread`].
    pub(super) fn read(&mut self) -> Result<Firewall, FilterError> {
        let FilterSnapshot { table, drops, generation } = match FilterSnapshot::read(Self::opened(&mut self.socket)?) {
            Err(FilterError::Busy) => return Ok(Firewall { table: TableState::Unread, ..Firewall::default() }),
            snapshot => snapshot?,
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
