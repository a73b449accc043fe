//! Reads the sets that rules of other programs look up.

use std::collections::BTreeMap;

use otherix_netlink::{NLM_F_DUMP, attributes, find};

use super::super::filter::{FilterError, FilterSocket};
use super::super::snapshot::of_table;
use super::super::snapshot::{NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET};
use super::expression::{value, verdict};
use super::{family_number, fields, number, string};
use crate::model::filter::ForeignTable;
use crate::model::filter::set::{Element, ElementValue, FilterSet};

const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_DESC_CONCAT: u16 = 2;
const NFTA_SET_FIELD_LEN: u16 = 1;
const NFT_SET_INTERVAL: u32 = 4;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;

/// Most elements that are kept of a set; larger ones are unknown.
const ELEMENTS_MAX: usize = 1 << 18;

pub(super) fn read(
    socket: &mut FilterSocket,
    table: &ForeignTable,
) -> Result<BTreeMap<String, FilterSet>, FilterError> {
    let used = table.used_sets();
    if used.is_empty() {
        return Ok(BTreeMap::new());
    }
    let family = family_number(table.family);
    let mut sets = BTreeMap::new();
    for object in socket.dump(of_table(NFT_MSG_GETSET, NLM_F_DUMP, family, &table.name))? {
        let Some(fields) = fields(&object.body) else { continue };
        let Some(name) = string(fields, NFTA_SET_NAME).filter(|name| used.contains(name.as_str())) else { continue };
        let mut set = description(fields);
        let mut request = of_table(NFT_MSG_GETSETELEM, NLM_F_DUMP, family, &table.name);
        request.put_string(NFTA_SET_ELEM_LIST_SET, &name);
        for object in socket.dump(request)? {
            if set.elements.len() <= ELEMENTS_MAX {
                set.elements.extend(elements(&object.body));
            }
        }
        if set.elements.len() > ELEMENTS_MAX {
            (set.is_unknown, set.elements) = (true, Vec::new());
        }
        // An end comes before the beginning of the next range.
        set.elements.sort_by(|one, other| (&one.key, !one.is_end).cmp(&(&other.key, !other.is_end)));
        set.elements.dedup();
        sets.insert(name, set);
    }
    Ok(sets)
}

fn description(fields: &[u8]) -> FilterSet {
    let size = |fields, kind| number(fields, kind).and_then(|number| usize::try_from(number).ok());
    let description = find(fields, NFTA_SET_DESC).map(|description| description.value).unwrap_or_default();
    let concatenated = find(description, NFTA_SET_DESC_CONCAT).map(|list| list.value).unwrap_or_default();
    let parts = attributes(concatenated).map_while(Result::ok);
    let parts: Vec<_> = parts.filter_map(|part| size(part.value, NFTA_SET_FIELD_LEN)).collect();
    let has_intervals = number(fields, NFTA_SET_FLAGS).unwrap_or_default() & NFT_SET_INTERVAL != 0;
    FilterSet {
        length: size(fields, NFTA_SET_KEY_LEN).unwrap_or_default(),
        has_intervals: has_intervals && parts.len() < 2,
        parts,
        is_unknown: false,
        elements: Vec::new(),
    }
}

fn elements(body: &[u8]) -> Vec<Element> {
    let list = fields(body).and_then(|fields| find(fields, NFTA_SET_ELEM_LIST_ELEMENTS));
    let list = list.map(|list| list.value).unwrap_or_default();
    let elements = attributes(list).map_while(Result::ok).map(|element| {
        let fields = element.value;
        let data = find(fields, NFTA_SET_ELEM_DATA);
        let verdict = data.and_then(|data| verdict(data.value)).map(ElementValue::Verdict);
        let data = value(fields, NFTA_SET_ELEM_DATA).map(ElementValue::Data);
        Element {
            key: value(fields, NFTA_SET_ELEM_KEY),
            last: value(fields, NFTA_SET_ELEM_KEY_END),
            is_end: number(fields, NFTA_SET_ELEM_FLAGS).unwrap_or_default() & NFT_SET_ELEM_INTERVAL_END != 0,
            value: verdict.or(data).unwrap_or_default(),
        }
    });
    elements.collect()
}
