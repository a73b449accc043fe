//! Reads the observed state, and sends the requests that change it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use otherix_netlink::{Message, Refusal};
use otherix_runtime::LogLimit;

use super::conntrack;
use super::error::KernelError;
use super::message::{self, ip, port};
use super::nft::{FilterError, Nft};
use super::read::PortData;
use super::requests::{ReplyData, RequestError, RequestResult, Requests};
use super::sysctl::{self, Sysctls};
use super::uplink_record::UplinkRecord;
use crate::model::bridge_port::BridgePort;
use crate::model::filter::ForeignFilter;
use crate::model::firewall::{Firewall, Ruleset};
use crate::model::ip::{IpChange, Ipv4Config};
use crate::model::link::Link;
use crate::model::observed::Parts;
use crate::model::route::{Prefix, Routes};
use crate::model::route_lookup::{RouteLookup, RouteLookups};
use crate::model::rule::Rules;
use crate::model::tap_lock::TapLocks;

/// How often a dump is tried when changes interrupt it.
const DUMP_ATTEMPTS: u32 = 4;

/// `ENODEV`: there is no such link.
const ENODEV: i32 = 19;

/// `ENETUNREACH`: there is no route; also the answer of a rule of type `unreachable`.
const ENETUNREACH: i32 = 101;

/// The answers of rules and routes that drop packets: `blackhole` (EINVAL), `prohibit` (EACCES), `unreachable`
/// (EHOSTUNREACH).
const DROPPED: [i32; 3] = [22, 13, 113];

/// The answers of the reverse path filter: `EINVAL`, `EXDEV`.
const FILTERED: [i32; 2] = [22, 18];

/// Most addresses that are looked up with one datagram: the replies must fit into the socket's buffer.
const LOOK_UPS: usize = 32;

/// The parts of the observed state that were read; `None` for the others.
#[derive(Debug, Default)]
pub struct KernelState {
    pub links: Option<Vec<Link>>,
    /// Whether the dumps of links and IPv4 are consistent. If not, every attempt was interrupted by a change, and a
    /// link may be missing.
    pub is_complete: bool,
    pub ip: Option<Ipv4Config>,
    /// By interface index.
    pub ports: Option<BTreeMap<u32, BridgePort>>,
    /// With the rules that select their tables, if [`Self::ip`] was not read.
    pub routes: Option<(Routes, Rules)>,
    /// The packet filter, or why it cannot be read.
    pub firewall: Option<Result<Firewall, String>>,
    /// The tables of other programs; `Err` if they are changed too often to be read now.
    pub foreign: Option<Result<ForeignFilter, FilterChanges>>,
}

/// Other programs change the packet filter too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterChanges;

/// The kernel, in the network namespace of the thread that opened it. Calls block until the kernel replies: about
/// 0.3 ms for the creation of a link, 30 ms for a removal.
pub struct Kernel {
    requests: Requests,
    nft: Nft,
    sysctls: Sysctls,
    uplinks: UplinkRecord,
}

impl Kernel {
    /// Opens sockets in this thread's network namespace.
    ///
    /// # Errors
    /// [`KernelError::Open`].
    pub fn open() -> Result<Self, KernelError> {
        let requests = Requests::open().map_err(KernelError::Open)?;
        Ok(Self { requests, nft: Nft::open(), sysctls: Sysctls::default(), uplinks: UplinkRecord::default() })
    }

    /// Reads from this state folder which links the agent made forward IPv4, and records them there from now on.
    pub fn record_in(&mut self, state: &Path) {
        self.uplinks = UplinkRecord::read(state);
    }

    /// Makes every message after the next `messages` fail, those that clean up too, to test what a killed process
    /// leaves.
    pub fn fail_after(&mut self, messages: usize) {
        self.requests.fail_after(messages);
    }

    /// Reads these parts of the observed state.
    ///
    /// # Errors
    /// [`KernelError::Read`].
    pub fn read(&mut self, parts: Parts) -> Result<KernelState, KernelError> {
        let mut state = KernelState { is_complete: true, ..KernelState::default() };
        if parts.links {
            let ReplyData { links, interrupted, .. } = self.dump("the links", message::get_links())?;
            state.is_complete = !interrupted;
            let mut current = Ipv4Config::default();
            for (what, request) in [
                ("the addresses", ip::get_addresses()),
                ("the IPv4 forwarding settings", ip::get_forwarding()),
                ("the routes", ip::get_routes()),
            ] {
                let reply = self.dump(what, request)?;
                state.is_complete &= !reply.interrupted;
                apply_all(&mut current, &reply.ip);
            }
            self.read_rules(&mut current);
            if state.is_complete {
                self.uplinks.retain(|index| links.iter().any(|link| link.index == index));
            }
            current.turned_on = self.uplinks.links().clone();
            (state.links, state.ip) = (Some(links), Some(current));
        } else if parts.routes {
            let mut current = Ipv4Config::default();
            apply_all(&mut current, &self.dump("the routes", ip::get_routes())?.ip);
            self.read_rules(&mut current);
            state.routes = Some((current.routes, current.rules));
        }
        if parts.ports {
            let mut ports = BTreeMap::new();
            let reply = self.dump("the bridge ports", port::get_ports())?;
            reply.ports.into_iter().for_each(|data| add(&mut ports, data));
            let reply = self.dump("the forwarding databases", port::get_fdb())?;
            reply.ports.into_iter().for_each(|data| add(&mut ports, data));
            state.ports = Some(ports);
        }
        if parts.firewall {
            state.firewall = Some(self.nft.read().map_err(|error| error.to_string()));
        }
        if parts.foreign {
            state.foreign = Some(match self.nft.read_foreign() {
                Ok(filter) => Ok(filter),
                Err(FilterError::Busy) => Err(FilterChanges),
                Err(error) => {
                    static UNREADABLE: LogLimit = LogLimit::new();
                    if let Some(hits) = UNREADABLE.hit() {
                        tracing::warn!(%error, hits, "cannot read the packet filters of other programs");
                    }
                    Ok(ForeignFilter::default())
                }
            });
        }
        Ok(state)
    }

    /// Reads the rules of policy routing. A kernel without them refuses the request.
    fn read_rules(&mut self, current: &mut Ipv4Config) {
        match self.dump("the rules of policy routing", ip::get_rules()) {
            Ok(reply) => apply_all(current, &reply.ip),
            Err(error) => tracing::debug!(%error, "there is no policy routing"),
        }
    }

    /// Looks up the routes of the node's own packets to these addresses. Those that cannot be looked up are left out.
    pub fn look_up(&mut self, addresses: &BTreeSet<Ipv4Addr>) -> RouteLookups {
        let mut lookups = RouteLookups::new();
        let all: Vec<_> = addresses.iter().copied().collect();
        for some in all.chunks(LOOK_UPS) {
            let results = self.requests.exchange_uncounted(some.iter().map(|to| ip::look_up(*to)).collect());
            for (to, result) in some.iter().zip(results.unwrap_or_default()) {
                let lookup = match result {
                    Ok(reply) => {
                        reply.route_lookups.into_iter().find(|(found, _)| found == to).map(|(_, lookup)| lookup)
                    }
                    Err(error) if error.errno() == Some(ENETUNREACH) => Some(RouteLookup::NoRoute),
                    Err(error) => error.errno().filter(|errno| DROPPED.contains(errno)).map(|_| RouteLookup::Dropped),
                };
                lookups.extend(lookup.map(|lookup| (*to, lookup)));
            }
        }
        lookups.iter_mut().for_each(|(to, lookup)| self.look_up_answers(*to, lookup));
        lookups
    }

    /// Looks up whether packets from there are accepted, if there is a next hop.
    fn look_up_answers(&mut self, to: Ipv4Addr, lookup: &mut RouteLookup) {
        let RouteLookup::Through { link, gateway: Some(gateway), source: Some(source), is_answered } = lookup else {
            return;
        };
        let senders = [*gateway, to].map(|from| ip::look_up_received(from, *source, *link));
        let results = self.requests.exchange_uncounted(senders.into()).unwrap_or_default();
        let is_filtered = |error: &RequestError| error.errno().is_some_and(|errno| FILTERED.contains(&errno));
        *is_answered = !results.iter().any(|result| result.as_ref().is_err_and(is_filtered));
    }

    /// Sends a dump request, again if it is interrupted. `what` is for the error.
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

    /// Sends a message, and returns its result.
    pub(crate) fn request(&mut self, message: Message) -> RequestResult {
        self.requests.request(message)
    }

    /// Sends the messages as one datagram, and returns the result of each; if the socket fails, its error for all. The
    /// kernel processes them in order, whether or not one of them fails. At most 32 messages.
    pub(crate) fn exchange(&mut self, messages: Vec<Message>) -> Vec<RequestResult> {
        let count = messages.len();
        self.requests.exchange(messages).unwrap_or_else(|error| {
            let failed = |_| Err(RequestError::Socket(io::Error::new(error.kind(), error.to_string())));
            (0..count).map(failed).collect()
        })
    }

    /// Creates links with these messages, each with the name of its link, and returns their indexes.
    pub(crate) fn create_links(&mut self, links: Vec<(String, Message)>) -> Vec<Result<u32, RequestError>> {
        let (names, messages): (Vec<_>, Vec<_>) = links.into_iter().unzip();
        let created = self.exchange(messages);
        // Linux 6.2 and later reply with the link that they created.
        let lacks_link = |result: &RequestResult| result.as_ref().is_ok_and(|reply| reply.links.is_empty());
        let unknown = names.iter().zip(&created).filter(|(_, result)| lacks_link(result));
        let mut found = self.exchange(unknown.map(|(name, _)| message::find_link(name)).collect()).into_iter();
        let links =
            created.into_iter().map(|result| if lacks_link(&result) { found.next().unwrap_or(result) } else { result });
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

    /// Completes the creation of a link: if its configuration failed, for this reason, deletes it again.
    pub(crate) fn complete(&mut self, index: u32, failure: Option<String>) -> Result<(), String> {
        let Some(reason) = failure else { return Ok(()) };
        if let Err(error) = self.requests.request(message::delete_link(index)) {
            tracing::warn!(%error, index, "cannot delete a device that could not be configured");
        }
        Err(reason)
    }

    /// Returns the current name of a link.
    pub(crate) fn name_of(&mut self, index: u32) -> Result<String, String> {
        let found = self.request(message::get_link(index)).map_err(|error| error.to_string())?;
        found.links.into_iter().next().map(|link| link.name).ok_or_else(|| "it no longer exists".to_owned())
    }

    /// Disables the host's own IPv6 on a device of ours; see [`Sysctls::disable_ipv6`].
    pub(crate) fn disable_ipv6(&mut self, name: &str) {
        self.sysctls.disable_ipv6(&mut self.requests, name);
    }

    /// Disables the host's own IPv6 on a device of ours.
    pub(crate) fn disable_ipv6_of(&mut self, index: u32) {
        let found = self.request(message::get_link(index)).unwrap_or_default();
        found.links.iter().for_each(|link| self.disable_ipv6(&link.name));
    }

    /// Enables or disables IPv4 forwarding on a link.
    pub(crate) fn set_forwarding(&mut self, name: &str, on: bool) -> io::Result<()> {
        self.sysctls.set(&mut self.requests, &sysctl::forwarding(name), on)
    }

    /// Turns IPv4 forwarding of an uplink on, after recording that this agent does, or off, and removes it from the
    /// record.
    pub(crate) fn forward_uplink(&mut self, index: u32, name: &str, on: bool) -> io::Result<()> {
        let forwards = |name: &str| Ok::<_, io::Error>(fs::read_to_string(sysctl::forwarding(name))?.trim() != "0");
        if !on {
            self.set_forwarding(name, false)?;
            self.uplinks.retain(|recorded| recorded != index);
        } else if forwards(name)? {
            // Someone else did.
            self.uplinks.retain(|recorded| recorded != index);
        } else {
            self.uplinks.add(index, forwards("all")?)?;
            self.set_forwarding(name, true)?;
        }
        Ok(())
    }

    /// Replaces the guest filter, with these locks, or removes it.
    pub(crate) fn write_guest_filter(&mut self, locks: Option<&TapLocks>) -> Result<(), KernelError> {
        self.nft.write_guest_filter(locks).map_err(|error| KernelError::WriteGuestFilter(error.to_string()))
    }

    /// Removes locks of the guest filter, and adds others.
    pub(crate) fn change_locks(&mut self, removed: &TapLocks, added: &TapLocks) -> Result<(), KernelError> {
        self.nft.change_locks(removed, added).map_err(|error| KernelError::WriteGuestFilter(error.to_string()))
    }

    /// Replaces our tables with the rules of networks. Then deletes the connections of these subnets that began without
    /// the rules: the kernel applies NAT to the first packet of a connection only.
    pub(crate) fn write_table(&mut self, ruleset: &Ruleset, forget: &BTreeSet<Prefix>) -> Result<(), KernelError> {
        self.nft.write(ruleset).map_err(|error| KernelError::WriteTable(error.to_string()))?;
        if !forget.is_empty() {
            match conntrack::forget_untranslated(forget) {
                Ok(0) => {}
                Ok(connections) => tracing::info!(connections, "deleted connections that began without NAT"),
                Err(error) => tracing::warn!(%error, "cannot delete connections that began without NAT"),
            }
        }
        Ok(())
    }
}

fn add(ports: &mut BTreeMap<u32, BridgePort>, data: PortData) {
    match data {
        PortData::Settings { index, port } => {
            ports.insert(index, port);
        }
        PortData::Fdb { index, entry } => {
            // An entry of a link that is no bridge port is in the device's own database.
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

/// Returns the index of a link that was created or looked up.
fn index(found: RequestResult) -> Result<u32, RequestError> {
    let gone = || RequestError::from(Refusal::new(ENODEV));
    found?.links.first().map(|link| link.index).ok_or_else(gone)
}

/// Returns the first error among the results.
pub(crate) fn first_error(results: impl IntoIterator<Item = RequestResult>) -> Result<(), RequestError> {
    results.into_iter().find_map(Result::err).map_or(Ok(()), Err)
}
