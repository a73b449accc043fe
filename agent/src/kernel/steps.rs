//! Reading what there is, and taking the steps of a plan.

use std::collections::BTreeMap;
use std::io;

use otherix_netlink::{Message, Refusal};
use otherix_schemas::id::ClusterId;

use super::bridging;
use super::message;
use super::nft::Nft;
use super::read::PortNews;
use super::requests::{Answer, ReplyData, RequestError, Requests};
use super::sysctl::Switches;
use crate::model::firewall::Firewall;
use crate::model::ip::{Ip, IpChange};
use crate::model::observed::Link;
use crate::model::owner::Owner;
use crate::model::plan::Step;
use crate::model::port::Port;

/// How often a read of all links is begun again when changes disturb it.
const DUMP_ATTEMPTS: u32 = 4;

/// Most devices that are made with one system call. Each bridge brings two answers, of 4 KiB at most in the socket's buffer.
const CREATIONS: usize = 16;

/// `ENODEV`: there is no such link.
const ENODEV: i32 = 19;

/// Why something could not be done. The texts are shown to users as a network's or NIC's outcome.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// What there is could not be read.
    #[error("cannot read {what}: {reason}")]
    Read {
        /// What.
        what: &'static str,
        /// The kernel's word.
        reason: String,
    },
    /// A device could not be made.
    #[error("cannot make `{name}`: {reason}")]
    Create {
        /// Its name.
        name: String,
        /// The kernel's word.
        reason: String,
    },
    /// The work on the kernel was broken off.
    #[error("the work on the kernel was broken off")]
    Aborted(#[source] tokio::task::JoinError),
    /// A device could not be repaired.
    #[error("cannot repair the {what}: {reason}")]
    Repair {
        /// What it is.
        what: &'static str,
        /// The kernel's word.
        reason: String,
    },
    /// A device could not be removed.
    #[error("cannot remove `{name}`: {reason}")]
    Remove {
        /// Its name.
        name: String,
        /// What is in the way.
        reason: String,
    },
    /// Our table of the packet filter could not be written.
    #[error("cannot write the packet filter's table `otherix`: {0}")]
    Rules(String),
    /// A link by which a default route leads cannot forward.
    #[error("cannot have `{name}` forward IPv4: {source}")]
    Uplink {
        /// The link.
        name: String,
        /// The kernel's word.
        source: io::Error,
    },
}

/// What is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Links, and IPv4.
    pub links: bool,
    /// How links are as ports.
    pub ports: bool,
    /// The default routes alone; they are read with the links too.
    pub routes: bool,
    /// The packet filter.
    pub firewall: bool,
}

/// What was read; nothing of what was not to be.
#[derive(Debug, Default)]
pub struct Read {
    /// All links, or nearly all.
    pub links: Option<Vec<Link>>,
    /// None is missing. Otherwise the links never stopped changing, and one may be.
    pub complete: bool,
    /// IPv4.
    pub ip: Option<Ip>,
    /// How links are as ports, by their indexes.
    pub ports: Option<BTreeMap<u32, Port>>,
    /// The default routes.
    pub uplinks: Option<Ip>,
    /// The packet filter, or why it cannot be read.
    pub firewall: Option<Result<Firewall, String>>,
}

/// The kernel of the network namespace that this was opened in. Its calls block for as long as the kernel takes: 0.3 ms
/// for a creation, 30 ms for a removal.
pub struct Kernel {
    pub(super) requests: Requests,
    nft: Nft,
    pub(super) switches: Switches,
}

impl Kernel {
    /// Opens the kernel of this thread's network namespace.
    ///
    /// # Errors
    /// When there can be no netlink socket.
    pub fn open() -> Result<Self, KernelError> {
        let requests = Requests::open().map_err(KernelError::Open)?;
        Ok(Self { requests, nft: Nft::open(), switches: Switches::default() })
    }

    /// For tests of what a kill leaves: after so many more messages every other one fails, those that clean up too.
    pub fn set_fuse(&mut self, messages: usize) {
        self.requests.set_fuse(messages);
    }

    /// Reads what there is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn observe(&mut self, parts: Parts) -> Result<Read, KernelError> {
        let mut read = Read { complete: true, ..Read::default() };
        if parts.links {
            let ReplyData { links, interrupted, .. } = self.dump("the links", message::dump())?;
            (read.links, read.complete) = (Some(links), !interrupted);
            let mut ip = Ip::default();
            for (what, question) in [
                ("the addresses", message::addresses()),
                ("what forwards IPv4", message::forwarding()),
                ("the routes", message::routes()),
            ] {
                let told = self.dump(what, question)?;
                read.complete &= !told.interrupted;
                fold(&mut ip, &told.ip);
            }
            read.ip = Some(ip);
        } else if parts.routes {
            let mut ip = Ip::default();
            fold(&mut ip, &self.dump("the routes", message::routes())?.ip);
            read.uplinks = Some(ip);
        }
        if parts.ports {
            let mut ports = BTreeMap::new();
            let told = self.dump("the ports of bridges", bridging::ports())?.ports;
            told.into_iter().for_each(|news| take_in(&mut ports, news));
            let told = self.dump("the forwarding databases", bridging::stations())?.ports;
            told.into_iter().for_each(|news| take_in(&mut ports, news));
            read.ports = Some(ports);
        }
        if parts.firewall {
            read.firewall = Some(self.nft.read().map_err(|error| error.to_string()));
        }
        Ok(read)
    }

    pub(super) fn dump(&mut self, what: &'static str, question: Message) -> Result<ReplyData, KernelError> {
        let mut attempt = 1;
        loop {
            let told = self.requests.request(question.clone());
            let told = told.map_err(|error| KernelError::Read { what, reason: error.to_string() })?;
            if !told.interrupted || attempt == DUMP_ATTEMPTS {
                return Ok(told);
            }
            attempt += 1;
        }
    }

    /// Takes steps, and says of each how it went. One that fails holds up no other. Of a creation that fails nothing is left.
    pub fn execute(&mut self, steps: &[Step], cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let alike = steps.chunk_by(|one, next| std::mem::discriminant(one) == std::mem::discriminant(next));
        let mut results = Vec::with_capacity(steps.len());
        for steps in alike.flat_map(|alike| alike.chunks(CREATIONS)) {
            match steps.first() {
                Some(Step::Create { .. }) => results.extend(self.create_bridges(steps, cluster)),
                Some(Step::CreateVtep { .. }) => results.extend(self.create_vteps(steps, cluster)),
                Some(Step::CreateTap { .. }) => results.extend(self.create_taps(steps, cluster)),
                _ => results.extend(steps.iter().map(|step| self.take(step, cluster))),
            }
        }
        results
    }

    fn take(&mut self, step: &Step, cluster: ClusterId) -> Result<(), KernelError> {
        match step {
            Step::Create { .. } | Step::CreateTap { .. } | Step::CreateVtep { .. } => {
                self.execute(std::slice::from_ref(step), cluster).into_iter().collect()
            }
            Step::Repair { network, index, changes } => {
                self.repair_bridge(*index, changes, Owner::of_network(cluster, *network))
            }
            Step::RepairTap { nic, index, changes } => self
                .change_port(*index, changes, Owner::of_nic(cluster, *nic))
                .map_err(|reason| KernelError::Repair { what: "tap", reason }),
            Step::RepairVtep { network, index, changes } => self
                .change_port(*index, changes, Owner::of_network(cluster, *network))
                .map_err(|reason| KernelError::Repair { what: "VTEP", reason }),
            Step::Forward { network: _, index, changes } => self
                .forward(*index, changes)
                .map_err(|reason| KernelError::Repair { what: "forwarding to other nodes", reason }),
            Step::Remove { index, name } => {
                let reason = |reason: String| KernelError::Remove { name: name.clone(), reason };
                if self.is_there(*index, name, cluster).map_err(reason)? {
                    self.requests.request(message::remove(*index)).map_err(|error| reason(error.to_string()))?;
                }
                Ok(())
            }
            Step::Rules(rules) => self.nft.write(rules).map_err(|error| KernelError::Rules(error.to_string())),
            Step::Uplink { index: _, name } => {
                self.forward_ipv4(name, true).map_err(|source| KernelError::Uplink { name: name.clone(), source })
            }
        }
    }

    /// Makes links by their messages, and gives the index of each, whose name is with it.
    pub(super) fn make_links(&mut self, links: Vec<(String, Message)>) -> Vec<Result<u32, RequestError>> {
        let (names, messages): (Vec<_>, Vec<_>) = links.into_iter().unzip();
        let made = self.exchange(messages);
        // Linux 6.2 and later tell of the link that they made.
        let is_untold = |answer: &Answer| answer.as_ref().is_ok_and(|told| told.links.is_empty());
        let untold = names.iter().zip(&made).filter(|(_, answer)| is_untold(answer));
        let mut found = self.exchange(untold.map(|(name, _)| message::find(name)).collect()).into_iter();
        let told =
            made.into_iter().map(|answer| if is_untold(&answer) { found.next().unwrap_or(answer) } else { answer });
        told.map(index).collect()
    }

    /// Makes one link, and gives its index.
    pub(super) fn make_link(&mut self, name: String, create: Message) -> Result<u32, RequestError> {
        self.make_links(vec![(name, create)]).pop().unwrap_or_else(|| index(Ok(ReplyData::default())))
    }

    /// What came of completing a new device. One that was not completed is removed.
    pub(super) fn completed(&mut self, index: u32, failure: Option<String>) -> Result<(), String> {
        let Some(reason) = failure else { return Ok(()) };
        if let Err(error) = self.requests.request(message::remove(index)) {
            tracing::warn!(error = %error, index, "cannot remove a device that was not completed");
        }
        Err(reason)
    }

    /// Answers to each of the messages; if there can be none, that is the answer to each.
    pub(super) fn exchange(&mut self, messages: Vec<Message>) -> Vec<Answer> {
        let count = messages.len();
        self.requests.exchange(messages).unwrap_or_else(|error| {
            let failed = |_| Err(RequestError::Socket(io::Error::new(error.kind(), error.to_string())));
            (0..count).map(failed).collect()
        })
    }

    /// Whether a device that is to be removed is still there. The plan was made from what was known, and a port may have come
    /// since: says what is in the way.
    fn is_there(&mut self, index: u32, name: &str, cluster: ClusterId) -> Result<bool, String> {
        let found = match self.requests.request(message::look(index)) {
            Err(error) if error.errno() == Some(ENODEV) => return Ok(false),
            found => found.map_err(|error| error.to_string())?.links,
        };
        if !found.iter().all(|link| link.may_be_ours() && link.name == name) {
            return Err("it was changed just now".to_owned());
        }
        if !found.iter().any(Link::is_bridge) {
            return Ok(true);
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

fn take_in(ports: &mut BTreeMap<u32, Port>, news: PortNews) {
    match news {
        PortNews::Seen { index, locked, learning, altered, blocked, vlans } => {
            ports.insert(index, Port { locked, learning, altered, blocked, vlans, ..Port::default() });
        }
        PortNews::Station { index, station } => {
            // Stations at what is no port are of a device's own database.
            if let Some(port) = ports.get_mut(&index) {
                port.stations.insert(station);
            }
        }
        PortNews::Remote { index, remote } => {
            ports.entry(index).or_default().remotes.insert(remote);
        }
    }
}

fn fold(ip: &mut Ip, told: &[IpChange]) {
    for change in told {
        ip.apply(change);
    }
}

/// The index of a device that was made and looked for.
pub(super) fn index(found: Answer) -> Result<u32, RequestError> {
    let gone = || RequestError::from(Refusal::new(ENODEV));
    found?.links.first().map(|link| link.index).ok_or_else(gone)
}

/// The first of the answers that is a refusal.
pub(super) fn refusal(answers: impl IntoIterator<Item = Answer>) -> Option<String> {
    answers.into_iter().find_map(Result::err).map(|error| error.to_string())
}
