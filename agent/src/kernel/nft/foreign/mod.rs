//! Reads the tables of other programs. Numbers are from linux/netfilter.h, linux/netfilter_bridge.h and
//! linux/netfilter/nf_tables.h.

mod expression;
mod sets;
mod xtables;

use std::collections::BTreeMap;

use otherix_netlink::{Attribute, NLM_F_DUMP, attributes, find};

use super::filter::{FAMILY_HEADER, FilterError, FilterObject, FilterSocket, request};
use super::snapshot::{NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETTABLE, text};
use super::tables::{FAMILY_ARP, FAMILY_BRIDGE, FAMILY_INET, FAMILY_IPV4, OurTables};
use crate::model::filter::{Base, Chain, Family, ForeignFilter, ForeignTable, Hook, needed};

/// How often a read is tried when changes interrupt it: it is tried again later.
const ATTEMPTS: u32 = 2;

const FAMILY_NETDEV: u8 = 5;

/// The attribute with the table's name, the same in the messages of all objects.
const TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_DORMANT: u32 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_HOOK_DEVS: u16 = 4;
const NFTA_DEVICE_NAME: u16 = 1;
const NFTA_DEVICE_PREFIX: u16 = 2;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;

const NF_DROP: u32 = 0;

/// Reads what other programs have that may prevent our networks from working.
///
/// # Errors
/// [`FilterError::Busy`] if they change it too often.
pub(super) fn read(socket: &mut FilterSocket) -> Result<ForeignFilter, FilterError> {
    let mut attempt = 1;
    loop {
        let generation = socket.generation()?;
        let result = read_once(socket);
        let is_consistent = socket.generation()? == generation;
        match result {
            // A change while it was read is notified, and it is read again.
            Ok(filter) if is_consistent || filter.is_empty() => return Ok(filter),
            Err(error) if is_consistent && !matches!(error, FilterError::Busy) => return Err(error),
            Ok(_) | Err(_) if attempt == ATTEMPTS => return Err(FilterError::Busy),
            Ok(_) | Err(_) => attempt += 1,
        }
    }
}

fn read_once(socket: &mut FilterSocket) -> Result<ForeignFilter, FilterError> {
    let mut tables = BTreeMap::new();
    for object in others(socket, NFT_MSG_GETCHAIN)? {
        if let Some((key, name, chain)) = chain(&object.body) {
            tables.entry(key).or_insert_with(BTreeMap::new).insert(name, chain);
        }
    }
    let has_base = |chains: &BTreeMap<String, Chain>| chains.values().any(|chain| chain.base.is_some());
    tables.retain(|_, chains| has_base(chains));
    if tables.is_empty() {
        return Ok(ForeignFilter::default());
    }
    for object in others(socket, NFT_MSG_GETTABLE)? {
        let flags = fields(&object.body).and_then(|fields| number(fields, NFTA_TABLE_FLAGS));
        if flags.is_some_and(|flags| flags & NFT_TABLE_F_DORMANT != 0)
            && let Some(key) = table_key(&object.body)
        {
            tables.remove(&key);
        }
    }
    // The kernel dumps rules by chain, in their order.
    for FilterObject { kind: _, body } in others(socket, NFT_MSG_GETRULE)? {
        let chain = fields(&body).and_then(|fields| string(fields, NFTA_RULE_CHAIN));
        let key = table_key(&body);
        let chains = key.and_then(|key| tables.get_mut(&key));
        if let (Some(chains), Some(chain)) = (chains, chain)
            && let Some(chain) = chains.get_mut(&chain)
        {
            chain.rules.push(rule(&body));
        }
    }
    let tables =
        tables.into_iter().map(|((family, name), chains)| ForeignTable { family, name, chains, sets: BTreeMap::new() });
    let mut filter = needed(ForeignFilter { tables: tables.collect() });
    for table in &mut filter.tables {
        table.sets = sets::read(socket, table)?;
    }
    Ok(filter)
}

/// Reads the objects of this kind in the tables of others.
fn others(socket: &mut FilterSocket, kind: u16) -> Result<Vec<FilterObject>, FilterError> {
    let mut objects = socket.dump(request(kind, NLM_F_DUMP, 0))?;
    objects.retain(|object| !OurTables::ALL.iter().any(|tables| tables.have(&object.body)));
    Ok(objects)
}

fn family(body: &[u8]) -> Option<Family> {
    match *body.first()? {
        FAMILY_IPV4 => Some(Family::Ip),
        FAMILY_INET => Some(Family::Inet),
        FAMILY_ARP => Some(Family::Arp),
        FAMILY_BRIDGE => Some(Family::Bridge),
        FAMILY_NETDEV => Some(Family::Netdev),
        _ => None,
    }
}

fn family_number(family: Family) -> u8 {
    match family {
        Family::Ip => FAMILY_IPV4,
        Family::Inet => FAMILY_INET,
        Family::Arp => FAMILY_ARP,
        Family::Bridge => FAMILY_BRIDGE,
        Family::Netdev => FAMILY_NETDEV,
    }
}

fn table_key(body: &[u8]) -> Option<(Family, String)> {
    Some((family(body)?, string(fields(body)?, TABLE_NAME)?))
}

/// Parses a chain: its table, its name, and the chain without rules.
fn chain(body: &[u8]) -> Option<((Family, String), String, Chain)> {
    let key = table_key(body)?;
    let fields = fields(body)?;
    let base = find(fields, NFTA_CHAIN_HOOK).and_then(|hook| {
        let number_of_hook = number(hook.value, NFTA_HOOK_HOOKNUM)?;
        let priority = number(hook.value, NFTA_HOOK_PRIORITY).unwrap_or_default();
        Some(Base {
            hook: hook_of(key.0, number_of_hook)?,
            priority: i32::from_ne_bytes(priority.to_ne_bytes()),
            nat: string(fields, NFTA_CHAIN_TYPE).is_some_and(|kind| kind == "nat"),
            drops: number(fields, NFTA_CHAIN_POLICY) == Some(NF_DROP),
            devices: devices(hook),
        })
    });
    Some((key, string(fields, NFTA_CHAIN_NAME)?, Chain { base, rules: Vec::new() }))
}

fn hook_of(family: Family, number: u32) -> Option<Hook> {
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let number = usize::try_from(number).ok()?;
    match family {
        Family::Ip | Family::Bridge => hooks.get(number).copied(),
        Family::Inet => hooks.into_iter().chain([Hook::Ingress]).nth(number),
        Family::Arp => [Hook::Input, Hook::Output, Hook::Forward].get(number).copied(),
        Family::Netdev => [Hook::Ingress, Hook::Egress].get(number).copied(),
    }
}

fn devices(hook: Attribute<'_>) -> Vec<String> {
    let one = find(hook.value, NFTA_HOOK_DEV).map(|device| text(device.value));
    let several = find(hook.value, NFTA_HOOK_DEVS);
    let several = several.iter().flat_map(Attribute::nested).map_while(Result::ok);
    let several = several.filter_map(|device| match device.kind {
        NFTA_DEVICE_NAME => Some(text(device.value)),
        NFTA_DEVICE_PREFIX => Some(format!("{}*", text(device.value))),
        _ => None,
    });
    let mut devices: Vec<_> = one.into_iter().chain(several).collect();
    devices.dedup();
    devices
}

fn rule(body: &[u8]) -> Vec<crate::model::filter::expression::Expression> {
    let list = fields(body).and_then(|fields| find(fields, NFTA_RULE_EXPRESSIONS));
    let list = list.map(|list| list.value).unwrap_or_default();
    attributes(list).map_while(Result::ok).flat_map(|element| expression::parse(element.value)).collect()
}

/// Returns the attributes of a message's payload.
fn fields(body: &[u8]) -> Option<&[u8]> {
    body.get(FAMILY_HEADER..)
}

fn number(fields: &[u8], kind: u16) -> Option<u32> {
    find(fields, kind)?.array().map(u32::from_be_bytes)
}

fn string(fields: &[u8], kind: u16) -> Option<String> {
    find(fields, kind).map(|attribute| text(attribute.value))
}
