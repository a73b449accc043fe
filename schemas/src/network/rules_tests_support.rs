//! Valid networks, for tests.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{NetworkDefinition, NetworkDraft, NetworkSpec, NewNetworkSpec, OverlaySpec};
use crate::value::Ipv4Subnet;
use crate::violations::Violations;

/// What is created from a draft, as the control plane does it.
pub(super) fn created(draft: &NetworkDraft) -> Result<NetworkDefinition, Violations> {
    let new = draft.check(Some(Ipv4Subnet::DEFAULT_MESH))?;
    let spec = match new.spec {
        NewNetworkSpec::Bridge(bridge) => NetworkSpec::Bridge(bridge),
        NewNetworkSpec::Overlay { subnet, egress, dhcp, allow_spoofing } => {
            let (vni, mtu) = (1000.try_into().unwrap(), 1390.try_into().unwrap());
            NetworkSpec::Overlay(OverlaySpec { vni, subnet, egress, mtu, dhcp, allow_spoofing })
        }
    };
    Ok(NetworkDefinition { name: new.name, spec, metadata: new.metadata })
}

/// A draft that is valid.
pub(super) fn any_draft() -> impl Strategy<Value = NetworkDraft> {
    let subnet = (0..4_u8, 20..28_u8).prop_map(|(number, prefix)| format!("10.{}.0.0/{prefix}", 100 + number));
    let flags = (any::<bool>(), any::<bool>(), any::<Option<bool>>(), any::<Option<bool>>(), any::<bool>());
    let numbers = (proptest::option::of(68..9000_i64), proptest::option::of(1..4095_i64));
    let labels = proptest::option::of(proptest::collection::btree_map("[a-c]", "[x-z]{0,2}", 0..3));
    let metadata = (proptest::option::of("[a-z]{1,9}"), labels);
    (any::<bool>(), subnet, flags, numbers, metadata).prop_map(
        |(overlay, subnet, (nat, dhcp, dns, allow_spoofing, explicit), (mtu, vlan), (description, labels))| {
            let gateway =
                (explicit && (nat || dhcp)).then(|| subnet.split('/').next().unwrap().replace(".0.0", ".0.9"));
            let common = NetworkDraft {
                name: "net".to_owned(),
                egress: nat.then(|| "nat".to_owned()),
                gateway,
                dhcp: dhcp.then_some(true),
                dns: dns.filter(|_| dhcp),
                allow_spoofing,
                description,
                labels: labels.filter(|labels: &BTreeMap<_, _>| !labels.is_empty()),
                ..NetworkDraft::default()
            };
            if overlay {
                return NetworkDraft { kind: Some("overlay".to_owned()), subnet: Some(subnet), ..common };
            }
            let subnet = (nat || dhcp).then_some(subnet);
            let bridge_name = Some("br0".to_owned());
            NetworkDraft { bridge_name, managed: Some(true), subnet, mtu, vlan, ..common }
        },
    )
}
