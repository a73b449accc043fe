//! Decisions about changes of networks, and about definitions that are applied.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

#[path = "support/builders.rs"]
mod builders;
#[path = "support/decisions.rs"]
mod decisions;

use builders::*;
use decisions::{Given, given};
use otherix_commands::config::ClusterConfig;
use otherix_commands::domain::{Network, Rejection, Reply, answer};
use otherix_schemas::change::ChangeResult;
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::event::Event;
use otherix_schemas::network::{BridgeSpec, NetworkChanged, NetworkCommand, NetworkDraft, NetworkEvent, NetworkSpec};
use otherix_schemas::position::Position;
use otherix_schemas::value::{Ipv4Subnet, Metadata};
use otherix_schemas::vm::VmCommand;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn object(fields: Value) -> Map<String, Value> {
    fields.as_object().unwrap().clone()
}

fn change(id: u128, changes: Value) -> Command {
    change_if(id, None, changes)
}

fn change_if(id: u128, if_generation: Option<u64>, changes: Value) -> Command {
    let if_generation = if_generation.map(Position::new);
    Command::Network(NetworkCommand::Change { network_id: network_id(id), if_generation, changes: object(changes) })
}

fn apply(id: u128, draft: Value) -> Command {
    let (draft, violations) = NetworkDraft::from_json(object(draft));
    assert!(violations.is_empty(), "{violations}");
    apply_draft(id, draft, None)
}

fn apply_draft(id: u128, draft: NetworkDraft, if_generation: Option<u64>) -> Command {
    let if_generation = if_generation.map(Position::new);
    Command::Network(NetworkCommand::Apply { network_id: network_id(id), if_generation, draft: Box::new(draft) })
}

fn changed_to(id: u128, text: &str, bridge: BridgeSpec, metadata: Metadata) -> Event {
    NetworkChanged { network_id: network_id(id), name: name(text), spec: NetworkSpec::Bridge(bridge), metadata }.into()
}

fn labels(pairs: &[(&str, &str)]) -> Metadata {
    let labels = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Metadata { labels: otherix_schemas::value::Labels::parse(labels.collect()).unwrap(), description: None }
}

/// The fields that are refused.
#[track_caller]
fn refused(given: &Given, command: &Command) -> Vec<String> {
    let Err(rejection) = given.when(command).result else { panic!("not refused") };
    let body = ErrorBody::from(&rejection);
    assert_eq!(body.error.code, ErrorCode::ValidationFailed, "{}", body.error.message);
    body.error.details["fields"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn a_change_is_recorded_with_the_whole_definition_and_nothing_if_there_is_none() {
    let mut given = given([node_joined(1), created(1, "net", managed("br0"))]);
    let changed = BridgeSpec { mtu: 1400.try_into().unwrap(), ..managed("br0") };
    let event = changed_to(1, "net", changed, labels(&[("a", "1")]));
    let command = change(1, json!({"mtu": 1400, "labels": {"a": "1"}}));
    given.when(&command).then([event.clone()]);
    given.record(event);
    let network = given.state.network(network_id(1)).unwrap();
    assert_eq!((network.generation, network.version), (Position::new(3), 2));
    given.when(&command).then([]);
    given.when(&change(9, json!({}))).then_rejected(Rejection::NoSuchNetwork(network_id(9)));
    given.record(deleted(1, "net"));
    given.when(&command).then_rejected(Rejection::NoSuchNetwork(network_id(1)));
}

#[test]
fn a_network_is_created_with_labels_by_two_events() {
    let draft = json!({"name": "net", "bridge_name": "br0", "managed": true, "labels": {"a": "1"}});
    let described = changed_to(1, "net", managed("br0"), labels(&[("a", "1")]));
    given([]).when(&apply(1, draft)).then([created(1, "net", managed("br0")), described]);
}

#[test]
fn the_subnet_holds_all_addresses_in_use() {
    let on_network = |vms: &[(u128, [u8; 4])]| {
        let vms = vms.iter().flat_map(|(id, ip)| vm_created_at(*id, 1, 1, *ip));
        given([node_joined(1), created(1, "net", dhcp("br0", "10.20.0.0/24"))].into_iter().chain(vms))
    };
    let used = on_network(&[(5, [10, 20, 0, 2]), (6, [10, 20, 0, 200])]);
    assert_eq!(refused(&used, &change(1, json!({"subnet": "10.20.0.0/25"}))), ["subnet"]);
    assert_eq!(refused(&used, &change(1, json!({"subnet": "10.21.0.0/24"}))), ["subnet"]);
    assert_eq!(refused(&used, &change(1, json!({"gateway": "10.20.0.200"}))), ["gateway"]);
    let both = json!({"gateway": "10.20.0.2", "subnet": "10.20.0.0/25", "dns": false});
    assert_eq!(refused(&used, &change(1, both)), ["gateway", "subnet"]);
    assert_eq!(refused(&used, &change(1, json!({"dhcp": false}))), ["dhcp"]);
    for possible in [json!({"subnet": "10.20.0.0/23"}), json!({"gateway": "10.20.0.9"}), json!({"dns": false})] {
        assert_eq!(used.when(&change(1, possible.clone())).result.unwrap().len(), 1, "{possible}");
    }
    let Err(rejection) = used.when(&change(1, json!({"subnet": "10.20.0.0/25"}))).result else { panic!() };
    let expected = "invalid request: `subnet` must hold all addresses in use: `10.20.0.200` is that of VM `vm-6`. \
                    Choose one that does, or delete the VMs first";
    assert_eq!(rejection.to_string(), expected);
    // Until its tap is removed, a deleted VM may still use its address.
    let mut detached = on_network(&[(6, [10, 20, 0, 200])]);
    vm_deleted(6, Some(1)).into_iter().for_each(|event| detached.record(event));
    assert_eq!(refused(&detached, &change(1, json!({"subnet": "10.20.0.0/25"}))), ["subnet"]);
    let unused = on_network(&[]);
    let moved = json!({"subnet": "10.21.0.0/24", "dns": null});
    assert_eq!(unused.when(&change(1, moved)).result.unwrap().len(), 1);
    assert_eq!(unused.when(&change(1, json!({"dhcp": false}))).result.unwrap().len(), 1);
}

#[test]
fn a_vlan_stays_on_an_unmanaged_bridge_with_vms() {
    let trunk = BridgeSpec { vlan: Some(7.try_into().unwrap()), ..unmanaged("br0") };
    let mut given = given([node_joined(1), created(1, "net", trunk)]);
    assert!(given.when(&change(1, json!({"vlan": null}))).result.is_ok());
    vm_created(5, Some(1), 1).into_iter().for_each(|event| given.record(event));
    assert_eq!(refused(&given, &change(1, json!({"vlan": null}))), ["vlan"]);
    assert!(given.when(&change(1, json!({"vlan": 8}))).result.is_ok());
}

#[test]
fn a_change_must_not_overlap_another_network() {
    let mut given = given([created(1, "a", nat("br0", "10.20.0.0/24")), created(2, "b", nat("br1", "10.20.1.0/24"))]);
    given.when(&change(2, json!({"subnet": "10.20.0.128/25"}))).then_rejected(Rejection::SubnetOverlaps {
        subnet: subnet("10.20.0.128/25"),
        other: name("a"),
        taken: subnet("10.20.0.0/24"),
    });
    // Its own subnet is none of another, also if it begins elsewhere.
    given.execute(&change(2, json!({"subnet": "10.20.1.128/25"}))).unwrap();
    given.execute(&change(2, json!({"subnet": "10.20.1.0/24"}))).unwrap();
    given.execute(&change(1, json!({"subnet": "10.30.0.0/24"}))).unwrap();
    given.execute(&change(2, json!({"subnet": "10.20.0.0/23"}))).unwrap();
    let overlap = given.when(&create(3, "c", nat("br2", "10.20.1.0/24"))).result;
    assert!(matches!(overlap, Err(Rejection::SubnetOverlaps { .. })));
    given.execute(&change(2, json!({"egress": "none"}))).unwrap();
    given.execute(&create(3, "c", nat("br2", "10.20.1.0/24"))).unwrap();
}

#[test]
fn of_two_writers_one_gets_both_states() {
    let mut given = given([created(1, "net", managed("br0"))]);
    given.execute(&change_if(1, Some(1), json!({"mtu": 1400}))).unwrap();
    let Err(rejection) = given.when(&change_if(1, Some(1), json!({"vlan": 7}))).result else { panic!() };
    let ErrorBody { error } = ErrorBody::from(&rejection);
    assert_eq!((error.code, error.code.status()), (ErrorCode::Conflict, 409));
    assert_eq!(error.details["generation"], 2);
    let state = |key: &str| (error.details[key]["mtu"].clone(), error.details[key]["vlan"].clone());
    assert_eq!((state("current"), state("requested")), ((json!(1400), json!(null)), (json!(1400), json!(7))));
    assert_eq!(given.state.network(network_id(1)).unwrap().spec.vlan(), None, "nothing is mixed");
    // What would be refused anyhow has no state that it would lead to.
    let Err(rejection) = given.when(&change_if(1, Some(1), json!({"mtu": 5}))).result else { panic!() };
    assert_eq!(ErrorBody::from(&rejection).error.details.get("requested"), None);
    given.execute(&change_if(1, Some(2), json!({"vlan": 7}))).unwrap();
    let draft =
        NetworkDraft { name: "other".to_owned(), bridge_name: Some("br1".to_owned()), ..NetworkDraft::default() };
    let absent = given.when(&apply_draft(2, draft, Some(3))).result.unwrap_err();
    assert_eq!(ErrorBody::from(&absent).error.code, ErrorCode::NotFound);
}

#[test]
fn the_answer_says_what_was_changed() {
    let given = given([node_joined(1), created(1, "net", managed("br0"))]);
    let reply = |command: &Command| {
        let mut after = given.clone();
        after.execute(command).unwrap();
        let envelopes = &after.envelopes[given.envelopes.len()..];
        let Reply::AppliedNetwork(applied) =
            answer(&given.state, decisions::IDENTITY, command, Vec::new(), envelopes).data
        else {
            panic!("no network")
        };
        *applied
    };
    let changed = reply(&change(1, json!({"mtu": 1400, "labels": {"a": "1"}})));
    let fields: Vec<_> = changed.changes.iter().map(|change| (change.field.as_str(), change.to.clone())).collect();
    assert_eq!((changed.result, fields), (ChangeResult::Changed, vec![("labels.a", json!("1")), ("mtu", json!(1400))]));
    assert_eq!((changed.resource.generation, changed.resource.mtu.get()), (Position::new(3), 1400));
    assert!(changed.resource.updated_at > changed.resource.created_at);
    let unchanged = reply(&change(1, json!({"mtu": 1500})));
    assert_eq!((unchanged.result, unchanged.changes.len()), (ChangeResult::Unchanged, 0));
    assert_eq!((unchanged.resource.generation, unchanged.resource.status.expected), (Position::new(2), 1));
    let draft = |name: &str, bridge: &str| json!({"name": name, "bridge_name": bridge, "managed": true});
    let created = reply(&apply(2, draft("new", "br1")));
    assert_eq!((created.result, created.resource.name.as_str()), (ChangeResult::Created, "new"));
    assert_eq!(reply(&apply(2, draft("NET", "br0"))).result, ChangeResult::Unchanged);
}

#[test]
fn a_vm_is_created_once_and_what_it_is_stays() {
    let mut given = given([node_joined(1), node_joined(2), created(1, "net", dhcp("br0", "10.20.0.0/24"))]);
    let apply = |command: Command| {
        let Command::Vm(VmCommand::Create { vm_id, nic, vm, owner }) = command else { panic!("no creation") };
        let scope = otherix_schemas::user::RowScope::Any;
        Command::Vm(VmCommand::Apply { vm_id, nic, vm, owner, scope })
    };
    let vm = apply(create_vm(5, Some(1), None));
    assert_eq!(given.execute(&vm).unwrap().len(), 3);
    given.when(&vm).then([]);
    // What the control plane chose is compared only if it is given.
    let Reply::AppliedVm(applied) = answer(&given.state, decisions::IDENTITY, &vm, Vec::new(), &[]).data else {
        panic!()
    };
    assert_eq!(applied.result, ChangeResult::Unchanged);
    let own = applied.resource.node_id;
    let number = if own == node_id(1) { 1 } else { 2 };
    given.when(&apply(create_vm_at(5, Some(1), Some(number), Some([10, 20, 0, 2].into())))).then([]);
    let elsewhere = create_vm_at(5, Some(1), Some(3 - number), Some([10, 20, 0, 3].into()));
    assert_eq!(refused(&given, &apply(elsewhere)), ["ip", "node_id"]);
    assert_eq!(refused(&given, &apply(create_machine(5, None, number))), ["machine", "network_id"]);
}

/// A network as a draft, with one of few bridges, so that there are conflicts.
fn any_draft() -> impl Strategy<Value = NetworkDraft> {
    let flags = (any::<bool>(), any::<bool>(), any::<Option<bool>>());
    let spec = (0..3_u8, 0..3_u8, 20..26_u8, proptest::option::of(68..9000_i64), proptest::option::of(1..4095_i64));
    let labels = proptest::option::of(proptest::collection::btree_map("[a-c]", "[x-z]{0,2}", 0..3));
    (flags, spec, labels).prop_map(|((nat, dhcp, allow_spoofing), (number, net, prefix, mtu, vlan), labels)| {
        NetworkDraft {
            name: format!("net-{number}"),
            bridge_name: Some(format!("br-{number}")),
            managed: Some(true),
            egress: nat.then(|| "nat".to_owned()),
            subnet: (nat || dhcp).then(|| format!("10.10{net}.0.0/{prefix}")),
            dhcp: dhcp.then_some(true),
            allow_spoofing,
            mtu,
            vlan,
            labels,
            ..NetworkDraft::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn applied_definitions_end_in_what_the_last_of_each_says(drafts in proptest::collection::vec(any_draft(), 1..12)) {
        let mut given = Given::default();
        let mut last = std::collections::BTreeMap::new();
        for (number, draft) in drafts.into_iter().enumerate() {
            let command = apply_draft(number as u128 + 1, draft.clone(), None);
            let before = given.state.clone();
            match given.execute(&command) {
                Ok(_) => drop(last.insert(draft.name.clone(), draft)),
                Err(rejection) => {
                    prop_assert!(matches!(rejection, Rejection::SubnetOverlaps { .. }), "{}", rejection);
                    prop_assert_eq!(&before, &given.state);
                    continue;
                }
            }
            prop_assert_eq!(given.when(&command).result, Ok(Vec::new()), "applied twice");
        }
        let mesh = ClusterConfig::default().mesh;
        let networks: Vec<_> = given.state.live_networks().map(|(_, network)| network).collect();
        prop_assert_eq!(networks.len(), last.len());
        for network in networks {
            let expected = expected(&last[network.name.as_str()], mesh);
            prop_assert_eq!(expected, (network.spec.clone(), network.metadata.clone()));
        }
        // A state that is made from a snapshot has the same indexes.
        let saved = postcard::to_allocvec(&given.state).unwrap();
        prop_assert_eq!(postcard::from_bytes::<otherix_commands::domain::State>(&saved).unwrap(), given.state);
    }
}

/// What creating the network alone leads to.
fn expected(draft: &NetworkDraft, mesh: Ipv4Subnet) -> (NetworkSpec, Metadata) {
    let mut alone = Given::default();
    let (network_id, network) = (network_id(1), draft.check(Some(mesh)).unwrap());
    alone.execute(&Command::Network(NetworkCommand::Create { network_id, network })).unwrap();
    let Network { spec, metadata, .. } = alone.state.network(network_id).unwrap().clone();
    (spec, metadata)
}

/// Every event of a network is folded, also one that an earlier state cannot have led to.
#[test]
fn a_change_of_what_is_not_there_changes_nothing() {
    let event = changed_to(1, "net", managed("br0"), Metadata::default());
    assert!(matches!(&event, Event::Network(NetworkEvent::Changed(_))));
    assert_eq!(given([event]).state.network(network_id(1)), None);
}
