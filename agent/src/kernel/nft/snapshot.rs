//! Reads digests of our tables at one generation. Numbers are from linux/netfilter/nf_tables.h.

use std::collections::{BTreeMap, BTreeSet};

use otherix_netlink::{Message, NLM_F_DUMP, attributes};
use sha2::{Digest, Sha256};

use super::batch::locks;
use super::filter::{FAMILY_HEADER, FilterError, FilterObject, FilterSocket, attribute, request};
use super::tables::OurTables;
use crate::model::tap_lock::{self, TapLock, TapLocks};

/// How often a read is tried when changes interrupt it.
const ATTEMPTS: u32 = 8;

pub(super) const NFT_MSG_GETTABLE: u16 = 1;
pub(super) const NFT_MSG_GETCHAIN: u16 = 4;
pub(super) const NFT_MSG_GETRULE: u16 = 7;
pub(super) const NFT_MSG_GETSET: u16 = 10;
pub(super) const NFT_MSG_GETSETELEM: u16 = 13;

/// The attribute with the table's name, the same in the messages of all objects.
const TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_CHAIN_HANDLE: u16 = 2;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_POSITION: u16 = 6;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_HANDLE: u16 = 16;
/// How many elements there are, since Linux 6.16.
const NFTA_SET_COUNT: u16 = 20;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

/// The digest of tables of ours, if there is one of them.
pub(super) type TablesDigest = Option<[u8; 32]>;

pub(super) struct FilterSnapshot {
    /// Of [`OurTables::NETWORKS`].
    pub(super) networks: TablesDigest,
    /// Of [`OurTables::GUESTS`].
    pub(super) guests: TablesDigest,
    /// Those of the guest filter, which are not in its digest.
    pub(super) locks: TapLocks,
    /// The generation at which it was read.
    pub(super) generation: u32,
}

impl FilterSnapshot {
    pub(super) fn read(socket: &mut FilterSocket) -> Result<Self, FilterError> {
        let mut attempt = 1;
        loop {
            let generation = socket.generation()?;
            let result = Self::attempt(socket);
            let is_consistent = socket.generation()? == generation;
            match result {
                Ok(snapshot) if is_consistent => return Ok(Self { generation, ..snapshot }),
                Err(error) if is_consistent && !matches!(error, FilterError::Busy) => return Err(error),
                Ok(_) | Err(_) if attempt == ATTEMPTS => return Err(FilterError::Busy),
                Ok(_) | Err(_) => attempt += 1,
            }
        }
    }

    fn attempt(socket: &mut FilterSocket) -> Result<Self, FilterError> {
        let chains = socket.dump(request(NFT_MSG_GETCHAIN, NLM_F_DUMP, 0))?;
        let mut locks = TapLocks::new();
        let networks = digest(socket, &OurTables::NETWORKS, &chains, &mut locks)?;
        let guests = digest(socket, &OurTables::GUESTS, &chains, &mut locks)?;
        Ok(Self { networks, guests, locks, generation: 0 })
    }
}

/// Reads the digest of tables, and adds the locks that they have. `chains` are those of all tables.
fn digest(
    socket: &mut FilterSocket,
    tables: &OurTables,
    chains: &[FilterObject],
    found: &mut TapLocks,
) -> Result<TablesDigest, FilterError> {
    let mut digest = Sha256::new();
    let mut has_any = false;
    for family in tables.families {
        let of_table = |kind, flags| of_table(kind, flags, *family, tables.name);
        let Some(table) = socket.find(of_table(NFT_MSG_GETTABLE, 0))? else { continue };
        has_any = true;
        digest.update([*family]);
        // For `dormant`.
        digest.update(attribute(&table.body, NFTA_TABLE_FLAGS).unwrap_or_default());
        let chains = chains.iter().filter(|chain| tables.have_in(*family, &chain.body));
        add(&mut digest, chains, &[NFTA_CHAIN_HANDLE, NFTA_CHAIN_USE]);
        // The kernel dumps rules by chain, in their order.
        let rules = socket.dump(of_table(NFT_MSG_GETRULE, NLM_F_DUMP))?;
        add(&mut digest, &rules, &[NFTA_RULE_HANDLE, NFTA_RULE_POSITION]);
        let sets = socket.dump(of_table(NFT_MSG_GETSET, NLM_F_DUMP))?;
        let names: Vec<_> = sets.iter().filter_map(|set| attribute(&set.body, NFTA_SET_NAME)).collect();
        add(&mut digest, &sets, &[NFTA_SET_HANDLE, NFTA_SET_COUNT]);
        for name in names {
            let mut request = of_table(NFT_MSG_GETSETELEM, NLM_F_DUMP);
            request.put(NFTA_SET_ELEM_LIST_SET, &name);
            let elements = socket.dump(request)?;
            if tables.have_locks_in(*family, &name) {
                let all = elements.iter().flat_map(|object| parse_locks(&object.body));
                for (tap, lock) in all {
                    tap_lock::change(found, &tap, lock, true);
                }
                continue;
            }
            // Their order is that of hashes, which varies, and sometimes one occurs twice.
            let lists = elements.iter().filter_map(|object| attribute(&object.body, NFTA_SET_ELEM_LIST_ELEMENTS));
            let elements: BTreeSet<Vec<u8>> = lists.flat_map(|list| values(&list)).collect();
            digest.update(&name);
            elements.iter().for_each(|element| add_value(&mut digest, element));
        }
    }
    Ok(has_any.then(|| digest.finalize().into()))
}

/// Parses elements of a set with locks: the name of the tap, and its lock. Others are left out.
pub(super) fn parse_locks(body: &[u8]) -> Vec<(String, TapLock)> {
    let Some(set) = attribute(body, NFTA_SET_ELEM_LIST_SET) else { return Vec::new() };
    let elements = attribute(body, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
    let lock = |element: Vec<u8>| {
        let key = otherix_netlink::find(&element, NFTA_SET_ELEM_KEY)?;
        let value = otherix_netlink::find(key.value, NFTA_DATA_VALUE)?;
        locks::parse(&set, value.value)
    };
    values(&elements).into_iter().filter_map(lock).collect()
}

/// Encodes a request for a table, or for objects in it.
pub(super) fn of_table(kind: u16, flags: u16, family: u8, name: &str) -> Message {
    let mut message = request(kind, flags, family);
    message.put_string(TABLE_NAME, name);
    message
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

/// Adds objects to the digest, except these attributes, which change with each write.
fn add<'a>(digest: &mut Sha256, objects: impl IntoIterator<Item = &'a FilterObject>, without: &[u16]) {
    for FilterObject { kind, body } in objects {
        digest.update(kind.to_be_bytes());
        let fields = fields(body.get(FAMILY_HEADER..).unwrap_or_default());
        for (kind, value) in fields.into_iter().filter(|(kind, _)| !without.contains(kind)) {
            digest.update(kind.to_be_bytes());
            add_value(digest, &value);
        }
    }
}

/// Adds a value to the digest, with its length.
fn add_value(digest: &mut Sha256, value: &[u8]) {
    digest.update(value.len().to_be_bytes());
    digest.update(value);
}

/// Returns the attributes, by kind.
fn fields(bytes: &[u8]) -> BTreeMap<u16, Vec<u8>> {
    let attributes = attributes(bytes).map_while(Result::ok);
    attributes.map(|attribute| (attribute.kind, attribute.value.to_vec())).collect()
}

/// Returns the values of the attributes.
fn values(bytes: &[u8]) -> Vec<Vec<u8>> {
    attributes(bytes).map_while(Result::ok).map(|attribute| attribute.value.to_vec()).collect()
}
