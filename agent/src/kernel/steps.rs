//! Reading all links, and taking the steps of a plan.

use std::io;

use otherix_schemas::id::{ClusterId, NetworkId};

use super::ipv6;
use super::message::{self, Message};
use super::socket::{Answer, Links, RequestError, Requests};
use crate::model::desired::DesiredBridge;
use crate::model::observed::Link;
use crate::model::owner::{Owner, temporary_name};
use crate::model::plan::{Changes, Step};

/// How often a read of all links is begun again when changes disturb it.
const DUMP_ATTEMPTS: u32 = 4;

/// Most bridges that are made with one system call. Each brings two answers, of 4 KiB at most in the socket's buffer.
const CREATIONS: usize = 16;

/// `ENODEV`: there is no such link.
const ENODEV: i32 = 19;

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
        /// What is in the way.
        reason: String,
    },
}

/// The links as they were read.
#[derive(Debug)]
pub struct Read {
    /// All links, or nearly all.
    pub links: Vec<Link>,
    /// None is missing. Otherwise the links never stopped changing, and one may be.
    pub complete: bool,
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

    /// For tests of what a kill leaves: after so many more messages every other one fails, those that clean up too.
    pub fn set_fuse(&mut self, messages: usize) {
        self.requests.set_fuse(messages);
    }

    /// Reads all links.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn observe(&mut self) -> Result<Read, KernelError> {
        let mut attempt = 1;
        loop {
            let read = self.requests.request(message::dump());
            let Links { links, interrupted } = read.map_err(|error| KernelError::Dump(error.to_string()))?;
            if !interrupted || attempt == DUMP_ATTEMPTS {
                return Ok(Read { links, complete: !interrupted });
            }
            attempt += 1;
        }
    }

    /// Takes steps, and says of each how it went. One that fails holds up no other. Of a creation that fails nothing is left.
    pub fn execute(&mut self, steps: &[Step], cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let both = |one: &Step, next: &Step| is_creation(one) == is_creation(next);
        let alike = steps.chunk_by(both).flat_map(|alike| alike.chunks(CREATIONS));
        let mut results = Vec::with_capacity(steps.len());
        for steps in alike {
            if steps.first().is_some_and(is_creation) {
                results.extend(self.create(steps, cluster));
            } else {
                results.extend(steps.iter().map(|step| self.take(step, cluster)));
            }
        }
        results
    }

    fn take(&mut self, step: &Step, cluster: ClusterId) -> Result<(), KernelError> {
        match step {
            Step::Create { .. } => self.create(std::slice::from_ref(step), cluster).into_iter().collect(),
            Step::Repair { network, index, changes } => {
                self.repair(*index, changes, Owner { cluster, network: *network })
            }
            Step::Remove { index, name } => {
                let reason = |reason: String| KernelError::Remove { name: name.clone(), reason };
                if self.is_there(*index, name, cluster).map_err(reason)? {
                    self.requests.request(message::remove(*index)).map_err(|error| reason(error.to_string()))?;
                }
                Ok(())
            }
        }
    }

    /// Makes bridges: first all of them, each ours by its temporary name and down; then each gets all that it must have.
    fn create(&mut self, steps: &[Step], cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let wanted: Vec<_> = steps.iter().filter_map(creation).collect();
        let made = wanted.iter().flat_map(|(network, bridge)| {
            let name = temporary_name(*network);
            [message::create(&name, bridge.mtu), message::find(&name)]
        });
        let mut made = self.exchange(made.collect()).into_iter();
        let indexes: Vec<_> = wanted.iter().map(|_| index(made.next(), made.next())).collect();
        for ((network, _), _) in wanted.iter().zip(&indexes).filter(|(_, index)| index.is_ok()) {
            ipv6::turn_off(&temporary_name(*network));
        }
        let completed = wanted.iter().zip(&indexes).filter_map(|((network, bridge), index)| {
            let owner = Owner { cluster, network: *network };
            index.as_ref().ok().map(|index| message::complete(*index, bridge, owner))
        });
        let mut completed = self.exchange(completed.collect()).into_iter();
        let mut results = Vec::with_capacity(steps.len());
        for ((_, bridge), index) in wanted.iter().zip(indexes) {
            let result = match index {
                Ok(index) => self.completed(index, completed.next()),
                Err(reason) => Err(reason),
            };
            results.push(result.map_err(|reason| KernelError::Create { name: bridge.name.clone(), reason }));
        }
        results
    }

    /// What came of completing a bridge. One that was not completed is removed.
    fn completed(&mut self, index: u32, answer: Option<Answer>) -> Result<(), String> {
        let Err(error) = answer.unwrap_or_else(|| Ok(Links::default())) else { return Ok(()) };
        if let Err(error) = self.requests.request(message::remove(index)) {
            tracing::warn!(error = %error, index, "cannot remove a bridge that was not completed");
        }
        Err(error.to_string())
    }

    /// Answers to each of the messages; if there can be none, that is the answer to each.
    fn exchange(&mut self, messages: Vec<Message>) -> Vec<Answer> {
        let count = messages.len();
        self.requests.exchange(messages).unwrap_or_else(|error| {
            let failed = |_| Err(RequestError::Socket(io::Error::new(error.kind(), error.to_string())));
            (0..count).map(failed).collect()
        })
    }

    fn repair(&mut self, index: u32, changes: &Changes, owner: Owner) -> Result<(), KernelError> {
        let mut repaired = self.requests.request(message::change(index, changes, owner));
        if let Err(RequestError::Refused(error)) = &repaired
            && changes.name.is_some()
            && error.kind() == io::ErrorKind::ResourceBusy
        {
            // Before Linux 6.2 a link must be down to be renamed.
            let changes = Changes { up: true, ..changes.clone() };
            let both = vec![message::take_down(index), message::change(index, &changes, owner)];
            repaired = self.exchange(both).pop().unwrap_or_else(|| Ok(Links::default()));
        }
        if changes.mtu.is_some() {
            // One that was too small for IPv6 makes the kernel forget that it was off.
            let found = self.requests.request(message::look(index)).unwrap_or_default();
            found.links.iter().for_each(|link| ipv6::turn_off(&link.name));
        }
        repaired.map(drop).map_err(|error| KernelError::Repair(error.to_string()))
    }

    /// Whether a bridge that is to be removed is still there. The plan was made from what was known, and a port may have come
    /// since: says what is in the way.
    fn is_there(&mut self, index: u32, name: &str, cluster: ClusterId) -> Result<bool, String> {
        let bridge = match self.requests.request(message::look(index)) {
            Err(RequestError::Refused(error)) if error.raw_os_error() == Some(ENODEV) => return Ok(false),
            found => found.map_err(|error| error.to_string())?.links,
        };
        if !bridge.iter().all(|link| link.is_bridge() && link.name == name) {
            return Err("it was changed just now".to_owned());
        }
        let is_ours = |link: &Link| {
            let owner = link.alias.as_deref().and_then(|alias| alias.parse::<Owner>().ok());
            owner.is_some_and(|owner| owner.cluster == cluster)
        };
        let ports = self.requests.request(message::ports(index)).map_err(|error| error.to_string())?.links;
        let foreign = ports.iter().find(|port| port.master == Some(index) && !is_ours(port));
        foreign.map_or(Ok(true), |port| Err(format!("it has got the port `{}`", port.name)))
    }
}

fn is_creation(step: &Step) -> bool {
    creation(step).is_some()
}

fn creation(step: &Step) -> Option<(NetworkId, &DesiredBridge)> {
    match step {
        Step::Create { network, bridge } => Some((*network, bridge)),
        Step::Repair { .. } | Step::Remove { .. } => None,
    }
}

/// The index of a bridge that was made and looked for.
fn index(made: Option<Answer>, found: Option<Answer>) -> Result<u32, String> {
    let answer = |answer: Option<Answer>| answer.unwrap_or_else(|| Ok(Links::default())).map_err(|e| e.to_string());
    answer(made)?;
    let found = answer(found)?.links;
    found.first().map(|link| link.index).ok_or_else(|| "it is gone again".to_owned())
}
