//! The manifest of a network defines an equal network.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{
    Lifetime, NetworkDraft, NetworkSpec, NetworkView, NewNetwork, NewNetworkSpec, OverlaySpec,
};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{Mtu, NetworkName, Vni};
use proptest::prelude::*;
use uuid::Uuid;

use super::read_networks;
use crate::manifest::write;
use crate::output::yaml;

fn view_of(new: &NewNetwork) -> NetworkView {
    let spec = match &new.spec {
        NewNetworkSpec::Bridge(bridge) => NetworkSpec::Bridge(bridge.clone()),
        NewNetworkSpec::Overlay { subnet, egress, dhcp, allow_spoofing } => NetworkSpec::Overlay(OverlaySpec {
            vni: Vni::try_from(1000).unwrap(),
            subnet: *subnet,
            mtu: Mtu::try_from(1390).unwrap(),
            dhcp: *dhcp,
            egress: *egress,
            allow_spoofing: *allow_spoofing,
        }),
    };
    let created_at: Timestamp = "2026-01-02T03:04:05.000006Z".parse().unwrap();
    let lifetime = Lifetime { created_at, deleted_at: None };
    NetworkView::new(NetworkId::new(Uuid::nil()), new.name.clone(), &spec, Position::new(7), lifetime)
}

fn name() -> impl Strategy<Value = String> {
    let difficult = [
        "yes",
        "No",
        "NULL",
        "~",
        "1",
        "0x1f",
        "1e3",
        ".inf",
        "true",
        "a: b",
        "#x",
        "a #b",
        "*x",
        "&x",
        "!x",
        "- x",
        "-",
        "---",
        "...",
        "? x",
        "{a}",
        "[",
        "]",
        ",",
        "|",
        ">",
        "'",
        "\"",
        "%x",
        "@x",
        "`x`",
        "<<",
        "=",
        "a\\nb",
        "\u{feff}x",
        "x\u{2028}y",
        "\u{202e}x",
        "\u{ffff}",
        "网络",
        "ü",
        "2026-01-02",
        "12:30",
        "spec:",
        "Network",
    ];
    let characters = proptest::collection::vec(any::<char>(), 1..256).prop_map(String::from_iter);
    let ascii =
        proptest::collection::vec(0x20_u8..0x7f, 1..20).prop_map(|bytes| bytes.into_iter().map(char::from).collect());
    let long = any::<char>().prop_map(|c| c.to_string().repeat(255));
    prop_oneof![proptest::sample::select(difficult.to_vec()).prop_map(str::to_owned), characters, ascii, long]
        .prop_filter("a name", |name| NetworkName::parse(name).is_ok())
}

fn bridge_name() -> impl Strategy<Value = String> {
    let words =
        proptest::sample::select(&["yes", "on", "null", "true", "n", "br-app", "e1", "NaN"]).prop_map(str::to_owned);
    prop_oneof![words, "[A-Za-z][A-Za-z0-9_-]{0,14}"]
}

fn draft() -> impl Strategy<Value = NetworkDraft> {
    let dhcp = || (any::<bool>(), proptest::option::of(any::<bool>()));
    let subnet = (any::<u32>(), 8..=30_u8, proptest::option::of(1..=2_u32), any::<bool>(), dhcp());
    let options = (any::<bool>(), proptest::option::of(subnet));
    let numbers = (proptest::option::of(68..=9216_i64), proptest::option::of(1..=4094_i64));
    let bridge =
        (name(), bridge_name(), options, numbers).prop_map(|(name, bridge, (managed, subnet), (mtu, vlan))| {
            let bridge_name = Some(bridge);
            let plain =
                NetworkDraft { name, bridge_name, managed: Some(managed), mtu, vlan, ..NetworkDraft::default() };
            let Some((address, prefix, host, nat, (dhcp, dns))) = subnet else { return plain };
            // A subnet needs one of the two.
            let dhcp = dhcp || !nat;
            let base = address & (u32::MAX << (32 - u32::from(prefix)));
            NetworkDraft {
                managed: Some(true),
                egress: nat.then(|| "nat".to_owned()),
                subnet: Some(format!("{}/{prefix}", Ipv4Addr::from_bits(address))),
                gateway: host.map(|host| Ipv4Addr::from_bits(base + host).to_string()),
                dhcp: Some(dhcp),
                dns: dns.filter(|_| dhcp),
                ..plain
            }
        });
    let overlay = (name(), any::<u32>(), 8..=30_u8, dhcp(), any::<bool>()).prop_map(
        |(name, address, prefix, (dhcp, dns), nat)| NetworkDraft {
            name,
            kind: Some("overlay".to_owned()),
            subnet: Some(format!("{}/{prefix}", Ipv4Addr::from_bits(address))),
            egress: nat.then(|| "nat".to_owned()),
            dhcp: Some(dhcp),
            dns: dns.filter(|_| dhcp),
            ..NetworkDraft::default()
        },
    );
    let spoofing = proptest::option::of(any::<bool>());
    (prop_oneof![bridge, overlay], spoofing)
        .prop_map(|(draft, allow_spoofing)| NetworkDraft { allow_spoofing, ..draft })
}

proptest! {
    #[test]
    fn manifest_defines_equal_networks(drafts in proptest::collection::vec(draft(), 1..4)) {
        let mut networks: Vec<NewNetwork> = drafts.iter().filter_map(|draft| draft.check(None).ok()).collect();
        let mut keys = HashSet::new();
        networks.retain(|network| keys.insert(network.name.key()));
        prop_assume!(!networks.is_empty());
        let views: Vec<NetworkView> = networks.iter().map(view_of).collect();
        let yaml = yaml::documents(views.iter().map(write));
        prop_assert!(yaml.chars().all(|c| c == '\n' || !c.is_control()), "{}", yaml);
        let (drafts, problems) = read_networks(&[&yaml]);
        prop_assert_eq!(problems, Vec::<String>::new(), "{}", yaml);
        let again: Vec<NewNetwork> = drafts.iter().map(|draft| draft.check(None).unwrap()).collect();
        prop_assert_eq!(again, networks, "{}", yaml);
    }
}
