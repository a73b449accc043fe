//! Datagrams of netlink sockets: replies and nested attributes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use otherix_netlink::{Attribute, MalformedAttribute, attributes, find, replies};

/// Nesting that is followed: deeper than that of any message of the kernel.
const DEPTH_MAX: u32 = 8;

fn walk<'a>(attributes: impl Iterator<Item = Result<Attribute<'a>, MalformedAttribute>>, depth: u32) {
    for attribute in attributes.flatten() {
        let _number = attribute.array::<4>();
        if depth < DEPTH_MAX {
            walk(attribute.nested().collect::<Vec<_>>().into_iter(), depth + 1);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    for reply in replies(bytes) {
        let _debug = std::hint::black_box(&reply);
    }
    walk(attributes(bytes), 0);
    let _found_or_not = find(bytes, 1);
});
