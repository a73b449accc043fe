//! The names of a network, and what a question about names is answered.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::client::Client;
use super::message::{A, Answer, IN, Message, Name, OPT, PTR, Query, Rcode, Record, SOA, Soa};
use super::relay::Relay;
use super::reverse::{self, Reverse};

/// What the names of all networks end with, which is reserved for private use.
pub const DOMAIN: [&str; 2] = ["otherix", "internal"];

/// How long a client may keep an answer, in seconds, also that there is none. Asking again costs the guest a tenth of a
/// millisecond; an address may be another VM's within seconds after its VM was deleted.
const TTL: u32 = 1;

/// Types of questions that are not about records of a type: for options and signatures, for transfers of zones, and for
/// all types at once.
const META: std::ops::RangeInclusive<u16> = 128..=255;

/// The names of the VMs of a network, by label and by address.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    addresses: HashMap<Box<str>, Ipv4Addr>,
    labels: HashMap<Ipv4Addr, Box<str>>,
}

impl Names {
    /// Returns these names. A label that occurs twice belongs to the first address.
    pub fn new(names: impl IntoIterator<Item = (String, Ipv4Addr)>) -> Self {
        let mut all = Self::default();
        for (label, address) in names {
            let label = label.into_boxed_str();
            if let std::collections::hash_map::Entry::Vacant(entry) = all.addresses.entry(label.clone()) {
                entry.insert(address);
                all.labels.insert(address, label);
            }
        }
        all
    }

    /// Returns how many names there are.
    pub fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Returns the address of a label.
    pub fn address(&self, label: &str) -> Option<Ipv4Addr> {
        self.addresses.get(label).copied()
    }
}

/// A network that resolves names. All guests of the network on this node share it.
#[derive(Debug)]
pub struct Zone {
    /// The network's label in [`DOMAIN`].
    label: String,
    subnet: (Ipv4Addr, u8),
    /// Who answers for other names; nobody on networks without egress.
    relay: Option<Arc<Relay>>,
    names: RwLock<Arc<Names>>,
    /// The guests on this node, by their address.
    clients: Mutex<HashMap<Ipv4Addr, Arc<Client>>>,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Decision<'a> {
    /// Nothing.
    Ignore,
    Answer(Vec<u8>),
    Relay(Query<'a>, Arc<Relay>),
}

impl Zone {
    /// Returns the zone of a network with this label in [`DOMAIN`], which must be one, and without names yet.
    pub fn new(label: String, subnet: (Ipv4Addr, u8), relay: Option<Arc<Relay>>) -> Self {
        let (names, clients) = (RwLock::default(), Mutex::default());
        Self { label, subnet, relay, names, clients }
    }

    /// Sets the names, for all guests at once.
    pub fn set_names(&self, names: Names) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    /// Returns the names.
    pub fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the labels of the network's domain.
    pub fn domain(&self) -> [&str; 3] {
        let [first, last] = DOMAIN;
        [&self.label, first, last]
    }

    /// Returns who may ask from this address.
    pub(crate) fn client(&self, address: Ipv4Addr) -> Option<Arc<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }

    /// Lets a guest ask.
    pub(crate) fn add_client(&self, address: Ipv4Addr, client: Arc<Client>) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(address, client);
    }

    /// Lets a guest ask no more, unless another one has its address since.
    pub(crate) fn remove_client(&self, address: Ipv4Addr, client: &Arc<Client>) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.get(&address).is_some_and(|current| Arc::ptr_eq(current, client)) {
            clients.remove(&address);
        }
    }

    /// Decides on a message of a guest.
    pub(crate) fn decide<'a>(&self, bytes: &'a [u8]) -> Decision<'a> {
        let query = match Message::read(bytes) {
            None => return Decision::Ignore,
            Some(Message::Faulty(answer)) => return Decision::Answer(answer),
            Some(Message::Query(query)) => query,
        };
        if query.class != IN || query.kind == OPT || META.contains(&query.kind) {
            return Decision::Answer(query.error(Rcode::Refused));
        }
        match (self.found(&query), &self.relay) {
            (Some(found), relay) => Decision::Answer(found.answer(&query, relay.is_some())),
            (None, Some(relay)) => Decision::Relay(query, Arc::clone(relay)),
            (None, None) => Decision::Answer(query.error(Rcode::Refused)),
        }
    }

    /// Returns what this network knows about the name; `None` if others may know.
    fn found(&self, query: &Query<'_>) -> Option<Found> {
        let name = &query.name;
        if name.ends_with(&DOMAIN) {
            let is_of_network = name.label_from_end(DOMAIN.len()) == Some(self.label.as_bytes());
            let what = match name.count() - DOMAIN.len() {
                0 => What::Nothing,
                1 if is_of_network => What::Nothing,
                2 if is_of_network => self.address(name),
                _ => What::NoName,
            };
            return Some(Found { what, soa: DOMAIN.len() });
        }
        let reverse = Reverse::of(name)?;
        let is_here = reverse.is_of(self.subnet);
        if !is_here && !reverse.is_private() {
            return None;
        }
        let what = match reverse {
            Reverse::Address(address) if is_here => self.label(address),
            // Names of addresses may follow.
            Reverse::Prefix(..) => What::Nothing,
            Reverse::Address(_) | Reverse::Below(..) | Reverse::PrivateIpv6 => What::NoName,
        };
        // What a guest keeps of such an answer is about the addresses beside this one at most.
        Some(Found { what, soa: name.count().saturating_sub(1).max(reverse::SUFFIX) })
    }

    fn address(&self, name: &Name) -> What {
        let label = name.label_from_end(DOMAIN.len() + 1).and_then(|label| std::str::from_utf8(label).ok());
        let address = label.and_then(|label| self.names().address(label));
        address.map_or(What::NoName, What::Address)
    }

    fn label(&self, address: Ipv4Addr) -> What {
        let names = self.names();
        let Some(label) = names.labels.get(&address) else { return What::NoName };
        let [network, first, last] = self.domain();
        let target = wire(&[label, network, first, last]);
        What::Name(target)
    }
}

/// Returns a name in wire format.
pub(crate) fn wire(labels: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels {
        // Labels have at most 63 bytes.
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// What a network knows about a name, and how many of its labels are the zone that knows it.
struct Found {
    what: What,
    soa: usize,
}

enum What {
    Address(Ipv4Addr),
    /// In wire format.
    Name(Vec<u8>),
    /// The name exists, but has no records other than that of the zone, if it is one.
    Nothing,
    NoName,
}

impl Found {
    fn answer(self, query: &Query<'_>, relays: bool) -> Vec<u8> {
        let data = match (&self.what, query.kind) {
            (What::Address(address), A) => Some(Cow::from(address.octets().to_vec())),
            (What::Name(target), PTR) => Some(Cow::from(target.as_slice())),
            (What::Address(_) | What::Name(_) | What::Nothing | What::NoName, _) => None,
        };
        let rcode = if matches!(self.what, What::NoName) { Rcode::NxDomain } else { Rcode::NoError };
        let record = data.map(|data| Record { kind: query.kind, ttl: TTL, data });
        let is_zone = query.kind == SOA && query.name.count() == self.soa && rcode == Rcode::NoError;
        let soa = query.name.offset_from_end(self.soa).filter(|_| record.is_none());
        let soa = soa.map(|offset| Soa { offset, ttl: TTL, is_answer: is_zone });
        query.answer(Answer { rcode, is_authoritative: true, relays, record, soa, ..Answer::default() })
    }
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
