//! Each rule of a network's definition, alone and combined with others.

use serde_json::json;

use super::*;

fn check_json(value: Value) -> Result<NewNetwork, Vec<String>> {
    let Value::Object(object) = value else { panic!("no object") };
    let (draft, mut violations) = NetworkDraft::from_json(object);
    match draft.check(Some(Ipv4Subnet::DEFAULT_MESH)) {
        Ok(network) if violations.is_empty() => Ok(network),
        result => {
            for (field, rule) in result.err().unwrap_or_default().iter() {
                violations.add(field, rule);
            }
            Err(violations.iter().map(|(field, _)| field.to_owned()).collect())
        }
    }
}

/// The fields with violations when `change` is merged into a valid bridge.
fn violated_fields(change: Value) -> Vec<String> {
    let mut draft = json!({"name": "net", "bridge_name": "br0"});
    let (Value::Object(draft_fields), Value::Object(change)) = (&mut draft, change) else { panic!() };
    draft_fields.extend(change);
    check_json(draft).err().unwrap_or_default()
}

#[test]
fn bridge_defaults() {
    let network = check_json(json!({"name": " net ", "bridge_name": "br0"})).unwrap();
    assert_eq!(network.name.as_str(), "net");
    let NewNetworkSpec::Bridge(bridge) = network.spec else { panic!("no bridge") };
    assert_eq!((bridge.ownership, bridge.mtu, bridge.vlan), (Ownership::Unmanaged, Mtu::DEFAULT, None));
}

#[test]
fn nat_gateway_defaults_to_first_host() {
    let network = check_json(json!({
        "name": "net", "bridge_name": "br0", "managed": true, "egress": "nat", "subnet": "10.20.0.7/24",
    }))
    .unwrap();
    let NewNetworkSpec::Bridge(BridgeSpec { ownership: Ownership::Managed(Egress::Nat(nat)), .. }) = network.spec
    else {
        panic!("no NAT")
    };
    assert_eq!((nat.subnet().to_string().as_str(), nat.gateway().to_string().as_str()), ("10.20.0.0/24", "10.20.0.1"));
}

#[test]
fn bridge_rules() {
    let nat =
        |subnet: &str, gateway: &str| json!({"managed": true, "egress": "nat", "subnet": subnet, "gateway": gateway});
    let none: &[&str] = &[];
    for (change, fields) in [
        (json!({}), none),
        (json!({"mtu": 68, "vlan": 4094, "managed": false}), none),
        (json!({"name": ""}), &["name"]),
        (json!({"type": "Bridge"}), &["type"]),
        (json!({"bridge_name": null}), &["bridge_name"]),
        (json!({"bridge_name": "OtB1"}), &["bridge_name"]),
        (json!({"bridge_name": "all"}), &["bridge_name"]),
        (json!({"bridge_name": "default"}), &["bridge_name"]),
        (json!({"bridge_name": "lo"}), &["bridge_name"]),
        (json!({"mtu": 67}), &["mtu"]),
        (json!({"mtu": "1500"}), &["mtu"]),
        (json!({"vlan": 0}), &["vlan"]),
        (json!({"egress": "NAT"}), &["egress"]),
        (json!({"egress": "nat"}), &["egress", "subnet"]),
        (json!({"egress": "nat", "managed": true}), &["subnet"]),
        (json!({"egress": "nat", "subnet": "10.0.0.0/24"}), &["egress"]),
        (json!({"subnet": "10.0.0.0/24"}), &["subnet"]),
        (json!({"dhcp": true}), &["dhcp", "subnet"]),
        (json!({"dhcp": true, "subnet": "10.0.0.0/24"}), &["dhcp"]),
        (json!({"dhcp": true, "managed": true}), &["subnet"]),
        (json!({"dhcp": true, "managed": true, "subnet": "10.0.0.0/24"}), none),
        (json!({"dhcp": true, "managed": true, "subnet": "10.0.0.0/24", "vlan": 7, "gateway": "10.0.0.9"}), none),
        (json!({"dhcp": true, "managed": true, "subnet": "10.0.0.0/24", "gateway": "10.0.1.9"}), &["gateway"]),
        (json!({"dhcp": true, "managed": true, "subnet": "10.42.0.0/24"}), none),
        (json!({"dhcp": true, "dns": false, "managed": true, "subnet": "10.0.0.0/24"}), none),
        (json!({"dns": true, "managed": true}), &["dns"]),
        (json!({"dns": true, "dhcp": false, "managed": true, "egress": "nat", "subnet": "10.0.0.0/24"}), &["dns"]),
        (json!({"dns": false, "dhcp": false}), none),
        (json!({"dns": "no", "dhcp": 1}), &["dhcp", "dns"]),
        (json!({"managed": true, "egress": "none", "subnet": "10.0.0.0/24"}), &["subnet"]),
        (json!({"gateway": "10.0.0.1"}), &["gateway"]),
        (nat("10.0.0.0/31", "10.0.0.1"), &["subnet"]),
        (nat("10.0.0.0/30", "10.0.0.3"), &["gateway"]),
        (nat("10.0.0.0/30", "10.0.0.0"), &["gateway"]),
        (nat("10.0.0.0/30", "10.0.1.1"), &["gateway"]),
        (nat("10.0.0.0/30", "first"), &["gateway"]),
        (nat("10.42.0.0/16", "10.42.0.1"), &["subnet"]),
        (nat("10.42.7.0/24", "10.42.7.1"), &["subnet"]),
        (nat("10.42.7.0/24", "10.42.7.0"), &["gateway", "subnet"]),
        (nat("10.0.0.0/8", "10.0.0.1"), none),
        (nat("0.0.0.0/8", "0.0.0.1"), &["subnet"]),
        (nat("127.0.0.0/24", "127.0.0.1"), &["subnet"]),
        (json!({"colour": "red", "managed": "yes"}), &["colour", "managed"]),
    ] {
        assert_eq!(violated_fields(change.clone()), fields, "{change}");
    }
}

#[test]
fn reports_all_violations_together() {
    let change = json!({
        "name": "a/b", "bridge_name": "0", "egress": "nat", "subnet": "10.0.0.0/4", "gateway": "x", "mtu": 1,
        "vlan": 9999,
    });
    assert_eq!(violated_fields(change), ["bridge_name", "egress", "gateway", "mtu", "name", "subnet", "vlan"]);
}

#[test]
fn overlay_takes_only_a_subnet() {
    let good = check_json(json!({"name": "net", "type": "overlay", "subnet": "10.42.0.9/24"})).unwrap();
    assert_eq!(
        good.spec,
        NewNetworkSpec::Overlay {
            subnet: "10.42.0.0/24".parse().unwrap(),
            egress: Egress::None,
            dhcp: None,
            allow_spoofing: false,
        }
    );
    for subnet in ["169.254.0.0/16", "224.0.1.0/24", "255.0.0.0/8"] {
        let bad = check_json(json!({"name": "net", "type": "overlay", "subnet": subnet}));
        assert_eq!(bad.unwrap_err(), ["subnet"], "{subnet}");
    }
    let bad = check_json(json!({
        "name": "net", "type": "overlay", "bridge_name": "br0", "mtu": 1500, "vlan": 1, "managed": true,
        "gateway": "10.0.0.1",
    }));
    assert_eq!(bad.unwrap_err(), ["bridge_name", "gateway", "managed", "mtu", "subnet", "vlan"]);
}

#[test]
fn overlays_with_egress_have_a_gateway() {
    let overlay = |change: Value| {
        let mut draft = json!({"name": "net", "type": "overlay", "subnet": "10.30.0.9/24", "egress": "nat"});
        let (Value::Object(fields), Value::Object(change)) = (&mut draft, change) else { panic!() };
        fields.extend(change);
        check_json(draft).map(|network| {
            let NewNetworkSpec::Overlay { egress, dhcp, .. } = network.spec else { panic!("no overlay") };
            let gateway = match egress {
                Egress::Nat(nat) => Some(nat.gateway().to_string()),
                Egress::None => None,
            };
            (gateway, dhcp.map(|dhcp| dhcp.subnet.gateway().to_string()))
        })
    };
    let text = |address: &str| Some(address.to_owned());
    assert_eq!(overlay(json!({})), Ok((text("10.30.0.1"), None)));
    assert_eq!(overlay(json!({"gateway": "10.30.0.7"})), Ok((text("10.30.0.7"), None)));
    let both = Ok((text("10.30.0.7"), text("10.30.0.7")));
    assert_eq!(overlay(json!({"gateway": "10.30.0.7", "dhcp": true})), both);
    assert_eq!(overlay(json!({"egress": "none", "dhcp": true})), Ok((None, text("10.30.0.1"))));
    assert_eq!(overlay(json!({"egress": "none"})), Ok((None, None)));
    assert_eq!(overlay(json!({"egress": "none", "gateway": "10.30.0.7"})), Err(vec!["gateway".to_owned()]));
    assert_eq!(overlay(json!({"egress": "out"})), Err(vec!["egress".to_owned()]));
    assert_eq!(overlay(json!({"subnet": "10.42.3.0/24"})), Err(vec!["subnet".to_owned()]), "in the mesh");
}

#[test]
fn overlays_with_dhcp_have_a_gateway() {
    let overlay = |change: Value| {
        let mut draft = json!({"name": "net", "type": "overlay", "subnet": "10.42.0.9/24", "dhcp": true});
        let (Value::Object(fields), Value::Object(change)) = (&mut draft, change) else { panic!() };
        fields.extend(change);
        check_json(draft).map(|network| {
            let NewNetworkSpec::Overlay { dhcp, .. } = network.spec else { panic!("no overlay") };
            dhcp.map(|dhcp| (dhcp.subnet.gateway().to_string(), dhcp.dns))
        })
    };
    assert_eq!(overlay(json!({})), Ok(Some(("10.42.0.1".to_owned(), true))));
    assert_eq!(overlay(json!({"dns": false})), Ok(Some(("10.42.0.1".to_owned(), false))));
    assert_eq!(overlay(json!({"gateway": "10.42.0.254"})), Ok(Some(("10.42.0.254".to_owned(), true))));
    assert_eq!(overlay(json!({"gateway": "10.42.1.1"})), Err(vec!["gateway".to_owned()]));
    assert_eq!(overlay(json!({"gateway": "10.42.0.255"})), Err(vec!["gateway".to_owned()]));
    assert_eq!(overlay(json!({"dhcp": false})), Ok(None));
    assert_eq!(overlay(json!({"dhcp": false, "gateway": "10.42.0.1"})), Err(vec!["gateway".to_owned()]));
    assert_eq!(overlay(json!({"dhcp": null, "dns": true})), Err(vec!["dns".to_owned()]));
}
