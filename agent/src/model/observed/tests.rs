//! Owners, the changes that matter to plans, and the consistency of the indexes.

use proptest::prelude::*;

use super::*;
use crate::model::link::{BRIDGE, BridgeSettings};

const OURS: &str = "otherix:01890a5d-ac96-774b-bcce-b302099a8057:01890a5d-ac96-774b-bcce-b302099a8058";
const OTHER: &str = "otherix:01890a5d-ac96-774b-bcce-b302099a8057:01890a5d-ac96-774b-bcce-b302099a8059";

fn link(index: u32, name: &str, alias: Option<&str>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        altnames: Vec::new(),
        kind: BRIDGE.to_owned(),
        mtu: 1500,
        mac: None,
        up: true,
        alias: alias.map(str::to_owned),
        master: None,
        group: None,
        ipv6: false,
        settings: BridgeSettings::PLAIN,
        vxlan: None,
        remote: None,
    }
}

fn wanted() -> BTreeSet<String> {
    ["br-app".to_owned()].into()
}

fn owner_of(observed: &Observed, index: u32) -> Option<String> {
    observed.owner(observed.link(index).unwrap()).map(|owner| owner.to_string())
}

#[test]
fn keeps_the_owner_when_the_alias_changes() {
    let mut observed = Observed::from(vec![link(2, "br-app", Some(OURS))]);
    for alias in [None, Some("mine"), Some(OTHER)] {
        assert!(observed.apply(LinkChange::Seen(link(2, "br-x", alias)), &wanted()));
        assert_eq!(owner_of(&observed, 2).as_deref(), Some(OURS));
    }
    observed.replace(vec![link(2, "br-app", None)], false);
    assert_eq!(owner_of(&observed, 2).as_deref(), Some(OURS));
    assert_eq!(observed.owned(OURS.parse().unwrap()).count(), 1);
}

#[test]
fn forgets_the_owner_when_the_link_is_gone_or_changes_were_missed() {
    let mut observed = Observed::from(vec![link(2, "br-app", Some(OURS))]);
    observed.apply(LinkChange::Gone(2), &wanted());
    observed.apply(LinkChange::Seen(link(2, "br-app", None)), &wanted());
    assert_eq!(owner_of(&observed, 2), None);
    let mut observed = Observed::from(vec![link(2, "br-app", Some(OURS))]);
    observed.replace(vec![link(2, "br-app", None)], true);
    assert_eq!(owner_of(&observed, 2), None);
}

#[test]
fn reports_changes_that_a_plan_may_depend_on() {
    let mut observed = Observed::from(vec![link(2, "br-ours", Some(OURS)), link(3, "docker0", None)]);
    let mut matters = |link: Link| observed.apply(LinkChange::Seen(link), &wanted());
    let port = |master| Link { kind: "veth".into(), master: Some(master), ..link(9, "veth0", None) };
    assert!(!matters(port(3)));
    assert!(matters(port(2)));
    assert!(!matters(port(2)), "unchanged");
    assert!(matters(port(3)), "it left a bridge of ours");
    assert!(matters(link(10, "br-app", None)));
    assert!(matters(link(10, "br-gone", None)), "the name became free");
    assert!(matters(Link { altnames: vec!["br-app".into()], ..link(10, "br-gone", None) }));
    assert!(matters(link(11, "ot.0123456789ab", None)));
}

fn change() -> impl Strategy<Value = LinkChange> {
    let name = prop_oneof![Just("br-app"), Just("br-db"), Just("ot.0123456789ab")];
    let alias = prop_oneof![Just(None), Just(Some(OURS)), Just(Some(OTHER)), Just(Some("mine"))];
    let master = prop_oneof![Just(None), (1..5u32).prop_map(Some)];
    let seen = (1..5u32, name, alias, master, any::<bool>()).prop_map(|(index, name, alias, master, alternative)| {
        let altnames = if alternative { vec!["alt".to_owned()] } else { Vec::new() };
        LinkChange::Seen(Link { master, altnames, ..link(index, name, alias) })
    });
    prop_oneof![4 => seen, 1 => (1..5u32).prop_map(LinkChange::Gone)]
}

proptest! {
    #[test]
    fn indexes_are_consistent_with_the_links(changes in prop::collection::vec(change(), 0..40)) {
        let mut observed = Observed::default();
        for change in changes {
            observed.apply(change, &BTreeSet::new());
        }
        let mut rebuilt = Observed::default();
        for known in observed.links.values() {
            rebuilt.put(known.clone());
        }
        prop_assert_eq!(rebuilt, observed);
    }
}
