//! Reads the observed state, and executes requests for those who change it.

use std::collections::BTreeMap;
use std::io;

use otherix_netlink::{Message, Refusal};

use super::error::KernelError;
use super::message::{self, ip, port};
use super::nft::Nft;
use super::read::PortData;
use super::requests::{Answer, ReplyData, RequestError, Requests};
use super::sysctl::{self, Sysctls};
use crate::model::bridge_port::BridgePort;
use crate::model::firewall::{Firewall, Ruleset};
use crate::model::ip::{IpChange, Ipv4Config};
use crate::model::link::Link;
use crate::model::observed::Parts;

/// How often a dump is repeated when changes interrupt it.
const DUMP_ATTEMPTS: u32 = 4;

/// `ENODEV`: there is no such link.
const ENODEV: i32 = 19;

/// What was read of the observed state: `None` for parts that were not to be read.
#[derive(Debug, Default)]
pub struct Read {
    pub links: Option<Vec<Link>>,
    /// Whether the dumps of links and IPv4 were not interrupted. If not, links never stopped changing, and one may be
    /// missing.
    pub is_complete: bool,
    pub ip: Option<Ipv4Config>,
    /// By interface index.
    pub ports: Option<BTreeMap<u32, BridgePort>>,
    /// Only the uplinks of it.
    pub uplinks: Option<Ipv4Config>,
    /// The packet filter, or why it cannot be read.
    pub firewall: Option<Result<Firewall, String>>,
}

/// The kernel of the network namespace in which this was opened. Calls block for as long as the kernel takes: 0.3 ms
/// for the creation of a link, 30 ms for a removal.
pub struct Kernel {
    requests: Requests,
    nft: Nft,
    sysctls: Sysctls,
}

impl Kernel {
    /// Opens the kernel of this thread's network namespace.
    ///
    /// # Errors
    /// [`KernelError::Open`].
    pub fn open() -> Result<Self, KernelError> {
        let requests = Requests::open().map_err(KernelError::Open)?;
        Ok(Self { requests, nft: Nft::open(), sysctls: Sysctls::default() })
    }

    /// Fails every message after the next `messages`, those that clean up too, to test what a killed process leaves.
    pub fn set_fuse(&mut self, messages: usize) {
        self.requests.set_fuse(messages);
    }

    /// Reads these parts of the observed state.
    ///
    /// # Errors
    /// [`KernelError::Read`].
    pub fn read(&mut self, parts: Parts) -> Result<Read, KernelError> {
        let mut read = Read { is_complete: true, ..Read::default() };
        if parts.links {
            let ReplyData { links, interrupted, .. } = self.dump("the links", message::get_links())?;
            (read.links, read.is_complete) = (Some(links), !interrupted);
            let mut current = Ipv4Config::default();
            for (what, request) in [
                ("the addresses", ip::get_addresses()),
                ("the IPv4 forwarding settings", ip::get_forwarding()),
                ("the routes", ip::get_routes()),
            ] {
                let reply = self.dump(what, request)?;
                read.is_complete &= !reply.interrupted;
                apply_all(&mut current, &reply.ip);
            }
            read.ip = Some(current);
        } else if parts.routes {
            let mut current = Ipv4Config::default();
            apply_all(&mut current, &self.dump("the routes", ip::get_routes())?.ip);
            read.uplinks = Some(current);
        }
        if parts.ports {
            let mut ports = BTreeMap::new();
            let reply = self.dump("the bridge ports", port::get_ports())?;
            reply.ports.into_iter().for_each(|data| add(&mut ports, data));
            let reply = self.dump("the forwarding databases", port::get_fdb())?;
            reply.ports.into_iter().for_each(|data| add(&mut ports, data));
            read.ports = Some(ports);
        }
        if parts.firewall {
            read.firewall = Some(self.nft.read().map_err(|error| error.to_string()));
        }
        Ok(read)
    }

    pub(super) fn dump(&mut self, what: &'static str, request: Message) -> Result<ReplyData, KernelError> {
        let mut attempt = 1;
        loop {
            let reply = self.requests.request(request.clone());
            let reply = reply.map_err(|error| KernelError::Read { what, reason: error.to_string() })?;
            if !reply.interrupted || attempt == DUMP_ATTEMPTS {
                return Ok(reply);
            }
            attempt += 1;
        }
    }

    /// Sends a message, and returns its outcome.
    pub(crate) fn request(&mut self, message: Message) -> Answer {
        self.requests.request(message)
    }

    /// Sends the messages as one datagram, and returns the outcome of each: if the socket fails, that for all of them.
    /// The kernel processes them in order, whether or not one of them fails. At most 32 messages.
    pub(crate) fn exchange(&mut self, messages: Vec<Message>) -> Vec<Answer> {
        let count = messages.len();
        self.requests.exchange(messages).unwrap_or_else(|error| {
            let failed = |_| Err(RequestError::Socket(io::Error::new(error.kind(), error.to_string())));
            (0..count).map(failed).collect()
        })
    }

    /// Creates links with these messages, each with the link's name, and returns their indexes.
    pub(crate) fn create_links(&mut self, links: Vec<(String, Message)>) -> Vec<Result<u32, RequestError>> {
        let (names, messages): (Vec<_>, Vec<_>) = links.into_iter().unzip();
        let created = self.exchange(messages);
        // Linux 6.2 and later reply with the link that they created.
        let lacks_link = |answer: &Answer| answer.as_ref().is_ok_and(|reply| reply.links.is_empty());
        let unknown = names.iter().zip(&created).filter(|(_, answer)| lacks_link(answer));
        let mut found = self.exchange(unknown.map(|(name, _)| message::find_link(name)).collect()).into_iter();
        let links =
            created.into_iter().map(|answer| if lacks_link(&answer) { found.next().unwrap_or(answer) } else { answer });
        links.map(index).collect()
    }

    /// Creates one link, and returns its index.
    pub(crate) fn create_link(&mut self, name: String, create: Message) -> Result<u32, RequestError> {
        self.create_links(vec![(name, create)]).pop().unwrap_or_else(|| index(Ok(ReplyData::default())))
    }

    /// Returns the indexes of links with these names.
    pub(crate) fn find_links(&mut self, names: &[String]) -> Vec<Result<u32, RequestError>> {
        self.exchange(names.iter().map(|name| message::find_link(name)).collect()).into_iter().map(index).collect()
    }

    /// Completes the creation of a link: one that could not be configured, for the reason given, is deleted again.
    pub(crate) fn complete(&mut self, index: u32, failure: Option<String>) -> Result<(), String> {
        let Some(reason) = failure else { return Ok(()) };
        if let Err(error) = self.requests.request(message::delete_link(index)) {
            tracing::warn!(%error, index, "cannot delete a device that could not be configured");
        }
        Err(reason)
    }

    /// Returns the name that a link has now.
    pub(crate) fn name_of(&mut self, index: u32) -> Result<String, String> {
        let found = self.request(message::get_link(index)).map_err(|error| error.to_string())?;
        found.links.into_iter().next().map(|link| link.name).ok_or_else(|| "it no longer exists".to_owned())
    }

    /// Turns the host's own IPv6 off on a device of ours; see [`Sysctls::disable_ipv6`].
    pub(crate) fn disable_ipv6(&mut self, name: &str) {
        self.sysctls.disable_ipv6(&mut self.requests, name);
    }

    /// Turns IPv4 forwarding on a link on or off.
    pub(crate) fn set_forwarding(&mut self, name: &str, on: bool) -> io::Result<()> {
        self.sysctls.set(&mut self.requests, &sysctl::forwarding(name), on)
    }

    /// Replaces our table of the packet filter.
    pub(crate) fn write_table(&mut self, ruleset: &Ruleset) -> Result<(), KernelError> {
        self.nft.write(ruleset).map_err(|error| KernelError::WriteTable(error.to_string()))
    }
}

fn add(ports: &mut BTreeMap<u32, BridgePort>, data: PortData) {
    match data {
        PortData::Settings { index, port } => {
            ports.insert(index, port);
        }
        PortData::Fdb { index, entry } => {
            // Entries of links that are no bridge ports are in a device's own database.
            if let Some(port) = ports.get_mut(&index) {
                port.fdb.insert(entry);
            }
        }
        PortData::Remote { index, entry } => {
            ports.entry(index).or_default().remotes.insert(entry);
        }
    }
}

fn apply_all(ip: &mut Ipv4Config, changes: &[IpChange]) {
    for change in changes {
        ip.apply(change);
    }
}

/// The index of a link that was created or looked up.
fn index(found: Answer) -> Result<u32, RequestError> {
    let gone = || RequestError::from(Refusal::new(ENODEV));
    found?.links.first().map(|link| link.index).ok_or_else(gone)
}

/// Returns the text of the first refusal among the answers.
pub(crate) fn refusal(answers: impl IntoIterator<Item = Answer>) -> Option<String> {
    answers.into_iter().find_map(Result::err).map(|error| error.to_string())
}
