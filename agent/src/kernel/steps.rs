//! Reading all links, and taking the steps of a plan.

use std::io;

use otherix_schemas::id::{ClusterId, NetworkId};

use super::message;
use super::socket::{RequestError, Requests};
use crate::model::desired::DesiredBridge;
use crate::model::observed::{LinkChange, Observed};
use crate::model::owner::{Owner, temporary_name};
use crate::model::plan::{Changes, Step};

/// How often a read of all links is begun again when changes disturb it.
const DUMP_ATTEMPTS: u32 = 10;

/// Why something could not be done. The texts are shown to users as a network's outcome.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The links could not be read.
    #[error("cannot read the links: {0}")]
    Dump(String),
    /// A bridge could not be made.
    #[error("cannot make the bridge `{name}`: {reason}")]
    Create {
        /// Its name.
        name: String,
        /// The kernel's word.
        reason: String,
    },
    /// The work on the kernel was broken off.
    #[error("the work on the kernel was broken off")]
    Aborted(#[source] tokio::task::JoinError),
    /// A bridge could not be repaired.
    #[error("cannot repair the bridge: {0}")]
    Repair(String),
    /// A bridge could not be removed.
    #[error("cannot remove the bridge `{name}`: {reason}")]
    Remove {
        /// Its name.
        name: String,
        /// The kernel's word.
        reason: String,
    },
}

/// The kernel of the network namespace that this was opened in. Its calls block for as long as the kernel takes: 0.3 ms
/// for a creation, 30 ms for a removal.
pub struct Kernel {
    requests: Requests,
}

impl Kernel {
    /// Opens the kernel of this thread's network namespace.
    ///
    /// # Errors
    /// When there can be no netlink socket.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self { requests: Requests::open().map_err(KernelError::Open)? })
    }

    /// Reads all links.
    ///
    /// # Errors
    /// When the kernel refuses, or the links never stop changing.
    pub fn observe(&mut self) -> Result<Observed, KernelError> {
        let mut last = RequestError::Interrupted;
        for _ in 0..DUMP_ATTEMPTS {
            match self.requests.request(message::dump()) {
                Ok(messages) => {
                    let links = messages.iter().filter_map(message::read).filter_map(|change| match change {
                        LinkChange::Seen(link) => Some(link),
                        LinkChange::Gone(_) => None,
                    });
                    return Ok(links.collect::<Vec<_>>().into());
                }
                Err(RequestError::Interrupted) => {}
                Err(error @ (RequestError::Refused(_) | RequestError::Socket(_))) => {
                    last = error;
                    break;
                }
            }
        }
        Err(KernelError::Dump(last.to_string()))
    }

    /// Takes a step.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is left of a creation then.
    pub fn execute(&mut self, step: &Step, cluster: ClusterId) -> Result<(), KernelError> {
        match step {
            Step::Create { network, bridge } => {
                let index = self.create_temporary(*network, bridge)?;
                let owner = Owner { cluster, network: *network };
                self.complete(index, bridge, owner).inspect_err(|_| {
                    let removed = self.requests.request(message::remove(index));
                    if let Err(error) = removed {
                        tracing::warn!(error = %error, index, "cannot remove a bridge that was not completed");
                    }
                })
            }
            Step::Repair { network: _, index, changes } => self.repair(*index, changes),
            Step::Remove { index, name } => {
                let removed = self.requests.request(message::remove(*index));
                removed.map(drop).map_err(|error| KernelError::Remove { name: name.clone(), reason: error.to_string() })
            }
        }
    }

    /// The first half of a creation: a bridge that is ours by its name, down. Gives its index.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create_temporary(&mut self, network: NetworkId, bridge: &DesiredBridge) -> Result<u32, KernelError> {
        let error = |reason: String| KernelError::Create { name: bridge.name.clone(), reason };
        let name = temporary_name(network);
        let both = self.requests.exchange([message::create(&name, bridge.mtu), message::find(&name)]);
        let [created, found] = both.map_err(|failed| error(failed.to_string()))?;
        created.map_err(|failed| error(failed.to_string()))?;
        let found = found.map_err(|failed| error(failed.to_string()))?;
        let index = found.iter().filter_map(message::read).find_map(|change| match change {
            LinkChange::Seen(link) => Some(link.index),
            LinkChange::Gone(_) => None,
        });
        index.ok_or_else(|| error(format!("`{name}` is gone again")))
    }

    /// The second half of a creation: the bridge gets its MTU, its name and its alias, and is up.
    fn complete(&mut self, index: u32, bridge: &DesiredBridge, owner: Owner) -> Result<(), KernelError> {
        let completed = self.requests.request(message::complete(index, bridge, owner));
        let error = |error: RequestError| KernelError::Create { name: bridge.name.clone(), reason: error.to_string() };
        completed.map(drop).map_err(error)
    }

    fn repair(&mut self, index: u32, changes: &Changes) -> Result<(), KernelError> {
        let mut repaired = self.requests.request(message::change(index, changes));
        if let Err(RequestError::Refused(error)) = &repaired
            && changes.name.is_some()
            && error.kind() == io::ErrorKind::ResourceBusy
        {
            // Before Linux 6.2 a link must be down to be renamed.
            let changes = Changes { up: true, ..changes.clone() };
            let both = self.requests.exchange([message::take_down(index), message::change(index, &changes)]);
            repaired = both.map_err(RequestError::Socket).and_then(|[_, changed]| changed);
        }
        repaired.map(drop).map_err(|error| KernelError::Repair(error.to_string()))
    }
}
