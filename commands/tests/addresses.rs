//! Decisions about the addresses of NICs: given / when / then.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

#[path = "support/builders.rs"]
mod builders;
#[path = "support/decisions.rs"]
mod decisions;

use std::net::Ipv4Addr;

use builders::*;
use decisions::{Given, given};
use otherix_commands::domain::Rejection;
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::event::Event;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::value::HostAddressError;
use serde_json::json;

/// A node and network 1, which assigns 10.20.0.2 to 10.20.0.6, at position 2; and further events.
fn cluster(more: impl IntoIterator<Item = Vec<Event>>) -> Given {
    let begin = vec![node_joined(1), created(1, "a", dhcp("br0", "10.20.0.0/29"))];
    given(std::iter::once(begin).chain(more).flatten())
}

fn at(id: u128, last: u8) -> Vec<Event> {
    vm_created_at(id, 1, 1, [10, 20, 0, last])
}

fn create_at(id: u128, address: &str) -> Command {
    create_vm_at(id, Some(1), None, Some(address.parse().unwrap()))
}

#[test]
fn a_nic_gets_the_lowest_address_that_is_free() {
    cluster([]).when(&create_vm(1, Some(1), None)).then(at(1, 2));
    cluster([at(1, 2), at(2, 3)]).when(&create_vm(3, Some(1), None)).then(at(3, 4));
    cluster([at(1, 2), at(2, 4)]).when(&create_vm(3, Some(1), None)).then(at(3, 3));
    // The gateway is never assigned, wherever it is.
    let last_gateway = given([node_joined(1), created(1, "a", dhcp("br0", "10.20.0.0/30"))]);
    last_gateway.when(&create_vm(1, Some(1), None)).then(at(1, 2));
}

#[test]
fn a_requested_address_is_given_if_it_is_free() {
    cluster([]).when(&create_at(1, "10.20.0.6")).then(at(1, 6));
    let taken =
        Rejection::AddressTaken { ip: Ipv4Addr::new(10, 20, 0, 6), network: name("a"), vm: "vm-1".parse().unwrap() };
    let body = ErrorBody::from(&taken).error;
    assert_eq!((body.code, json!(body.details)), (ErrorCode::Conflict, json!({})));
    assert_eq!(body.message, "address `10.20.0.6` of network `a` is in use by VM `vm-1`");
    cluster([at(1, 6)]).when(&create_at(2, "10.20.0.6")).then_rejected(taken);
}

#[test]
fn an_address_that_no_guest_can_have_is_a_violation_of_its_field() {
    let net = subnet("10.20.0.0/29");
    for (address, error) in [
        ("10.20.0.0", HostAddressError::Network(net)),
        ("10.20.0.1", HostAddressError::Gateway(net)),
        ("10.20.0.7", HostAddressError::Broadcast(net)),
        ("10.20.0.8", HostAddressError::Outside(net)),
        ("0.0.0.0", HostAddressError::Outside(net)),
        ("255.255.255.255", HostAddressError::Outside(net)),
    ] {
        let refused = Rejection::AddressRefused(error);
        let body = ErrorBody::from(&refused).error;
        assert_eq!(body.code, ErrorCode::ValidationFailed);
        assert_eq!(body.details["fields"]["ip"], json!([refused.to_string()]));
        cluster([]).when(&create_at(1, address)).then_rejected(refused);
    }
    let plain = given([node_joined(1), created(1, "a", managed("br0"))]);
    plain.when(&create_vm(1, Some(1), None)).then(vm_created(1, Some(1), 1));
    let refused = Rejection::NoDhcp(name("a"));
    assert_eq!(ErrorBody::from(&refused).error.details["fields"]["ip"], json!([refused.to_string()]));
    plain.when(&create_at(1, "10.20.0.2")).then_rejected(refused);
}

#[test]
fn a_full_network_is_refused_with_the_numbers() {
    let full = || [at(1, 2), at(2, 3), at(3, 4), at(4, 5), at(5, 6)].into_iter();
    let refused = |detached| Rejection::AddressesUsedUp {
        network: name("a"),
        subnet: subnet("10.20.0.0/29"),
        addresses: 5,
        used: 5,
        detached,
    };
    let body = ErrorBody::from(&refused(0)).error;
    assert_eq!((body.code, json!(body.details)), (ErrorCode::Conflict, json!({"addresses": 5, "used": 5})));
    assert_eq!(body.message, "all addresses of network `a` are in use: 5 of 5 in `10.20.0.0/29`");
    cluster(full()).when(&create_vm(6, Some(1), None)).then_rejected(refused(0));
    cluster(full().chain([vm_deleted(3, Some(1))])).when(&create_vm(6, Some(1), None)).then_rejected(refused(1));
    // Other networks are not affected.
    let other = cluster(full().chain([vec![created(2, "b", dhcp("br1", "10.20.0.0/29"))]]));
    other.when(&create_vm(6, Some(2), None)).then(vm_created_at(6, 2, 1, [10, 20, 0, 2]));
}

#[test]
fn an_address_is_free_again_when_the_tap_is_removed() {
    // The NIC of VM 1 is decided about at position 5; the guest behind its tap may still send.
    let detached = || [at(1, 2), vm_deleted(1, Some(1))].into_iter();
    let (ip, node) = (Ipv4Addr::new(10, 20, 0, 2), Some(node_name("node-1")));
    let not_free = Rejection::AddressNotFree { ip, network: name("a"), node };
    cluster(detached()).when(&create_at(2, "10.20.0.2")).then_rejected(not_free);
    cluster(detached()).when(&create_vm(2, Some(1), None)).then(at(2, 3));
    let removed = || vec![reconciled(1, 1, 1, [nic_outcome(1, 6, Outcome::Removed)])];
    cluster(detached().chain([removed()])).when(&create_vm(2, Some(1), None)).then(at(2, 2));
    cluster(detached().chain([removed()])).when(&create_at(2, "10.20.0.2")).then(at(2, 2));
    // What a removed node had is gone with it.
    let without_node = cluster(detached().chain([vec![node_removed(1), node_joined(2)]]));
    without_node.when(&create_vm(2, Some(1), None)).then(vm_created_at(2, 1, 2, [10, 20, 0, 2]));
}

#[test]
fn nics_of_earlier_versions_have_no_address() {
    // A network that assigns addresses has none of them, but nothing depends on that.
    cluster([vm_created(1, Some(1), 1)]).when(&create_vm(2, Some(1), None)).then(at(2, 2));
}
