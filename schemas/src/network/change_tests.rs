//! What of a network can be changed, field by field.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const MESH: Ipv4Subnet = Ipv4Subnet::DEFAULT_MESH;

/// A network that was created with these fields.
fn network(fields: Value) -> NetworkDefinition {
    let Value::Object(mut fields) = fields else { panic!("no object") };
    fields.entry("name").or_insert_with(|| "net".into());
    let (draft, violations) = NetworkDraft::from_json(fields);
    assert!(violations.is_empty(), "{violations}");
    created(&draft).unwrap()
}

fn change(network: &NetworkDefinition, changes: Value) -> Result<NetworkDefinition, Vec<String>> {
    let Value::Object(changes) = changes else { panic!("no object") };
    let changed = network.changed(changes, MESH);
    changed.map_err(|violations| violations.iter().map(|(field, _)| field.to_owned()).collect())
}

/// The fields that are refused.
fn refused(network: &NetworkDefinition, changes: Value) -> Vec<String> {
    change(network, changes).err().unwrap_or_default()
}

fn bridge() -> NetworkDefinition {
    network(json!({"bridge_name": "br0", "managed": true, "egress": "nat", "subnet": "10.20.0.0/24", "dhcp": true}))
}

#[test]
fn what_is_left_out_stays_as_it_is() {
    let before = bridge();
    assert_eq!(change(&before, json!({})), Ok(before.clone()));
    let after = change(&before, json!({"mtu": 1400, "vlan": 12, "description": "shop", "labels": {"a": "1"}})).unwrap();
    assert_eq!((after.spec.mtu().get(), after.spec.vlan().unwrap().get()), (1400, 12));
    assert_eq!(after.spec.nat(), before.spec.nat());
    let again = change(&after, json!({"labels": {"b": "2", "a": null}, "vlan": null, "description": null})).unwrap();
    assert_eq!((again.spec.mtu(), again.spec.vlan()), (after.spec.mtu(), None));
    assert_eq!(again.metadata.labels.iter().collect::<Vec<_>>(), [("b", "2")]);
    assert_eq!(again.metadata.description, None);
}

#[test]
fn all_refused_fields_are_named() {
    let changes = json!({"name": "other", "bridge_name": "br1", "managed": false, "mtu": 5, "vlan": "x", "vni": 7,
        "colour": null, "labels": {"A": "1"}});
    let fields = ["bridge_name", "colour", "labels", "managed", "mtu", "name", "vlan", "vni"];
    assert_eq!(refused(&bridge(), changes), fields);
    assert_eq!(refused(&bridge(), json!({"type": "overlay", "mtu": 5})), ["type"]);
    let same = json!({"name": "NET", "type": "bridge", "bridge_name": "br0", "managed": true});
    assert_eq!(change(&bridge(), same), Ok(bridge()), "what is named and is so is no change");
    let overlay = network(json!({"type": "overlay", "subnet": "10.30.0.0/24"}));
    assert_eq!(refused(&overlay, json!({"mtu": 1400})), ["mtu"]);
    assert_eq!(refused(&overlay, json!({"type": "bridge"})), ["type"]);
    assert_eq!(refused(&overlay, json!({"subnet": null})), ["subnet"]);
}

#[test]
fn the_advice_says_what_works() {
    let violations = bridge().changed(json!({"bridge_name": "br1"}).as_object().unwrap().clone(), MESH).unwrap_err();
    let expected = "`bridge_name` cannot be changed from `br0` to `br1`: create another network, and delete this one";
    assert_eq!(violations.to_string(), expected);
}

#[test]
fn what_belongs_to_something_goes_with_it() {
    let without = change(&bridge(), json!({"egress": "none"})).unwrap();
    assert_eq!((without.spec.nat(), without.spec.dhcp().is_some()), (None, true), "DHCP needs the subnet");
    let plain = change(&bridge(), json!({"egress": "none", "dhcp": false})).unwrap();
    assert_eq!((plain.spec.subnet(), plain.spec.dhcp()), (None, None));
    let kept = json!({"egress": "none", "dhcp": false, "subnet": "10.20.0.0/24"});
    assert_eq!(refused(&bridge(), kept), ["subnet"], "what is named does not");
    let moved = change(&bridge(), json!({"subnet": "10.21.0.0/24"})).unwrap();
    assert_eq!(moved.spec.gateway_subnet().unwrap().gateway().to_string(), "10.21.0.1", "the default moves with it");
    let other = change(&bridge(), json!({"gateway": "10.20.0.9"})).unwrap();
    assert_eq!(refused(&other, json!({"subnet": "10.21.0.0/24"})), ["gateway"], "one that was chosen does not");
}

#[test]
fn an_overlay_keeps_what_it_was_assigned() {
    let before = network(json!({"type": "overlay", "subnet": "10.30.0.0/24"}));
    let after = change(&before, json!({"egress": "nat", "dhcp": true, "allow_spoofing": true})).unwrap();
    assert_eq!((after.spec.vni(), after.spec.mtu()), (before.spec.vni(), before.spec.mtu()));
    assert!(after.spec.nat().is_some() && after.spec.dhcp().is_some() && after.spec.allows_spoofing());
    assert_eq!(change(&after, json!({"egress": "none", "dhcp": false, "allow_spoofing": null})), Ok(before));
}

/// What is created from a draft, as the control plane does it.
fn created(draft: &NetworkDraft) -> Result<NetworkDefinition, Violations> {
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
fn any_draft() -> impl Strategy<Value = NetworkDraft> {
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

proptest! {
    #[test]
    fn a_network_is_what_was_applied_last(first in any_draft(), second in any_draft()) {
        let first = created(&first).unwrap();
        // The draft of what is changes nothing, and neither does applying it again.
        prop_assert_eq!(&first.replaced_by(&first.draft(), MESH).unwrap(), &first);
        let Ok(changed) = first.replaced_by(&second, MESH) else { return Ok(()) };
        let expected = created(&second).unwrap();
        prop_assert_eq!(&changed.metadata, &expected.metadata);
        prop_assert_eq!(&changed.draft(), &NetworkDraft { name: first.name.to_string(), ..expected.draft() });
        prop_assert_eq!(&changed.replaced_by(&second, MESH).unwrap(), &changed);
        prop_assert_eq!(changed.spec.vni(), first.spec.vni());
    }
}
