//! Decisions about networks and nodes, and what is recorded of reports: given / when / then.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

#[path = "support/builders.rs"]
mod builders;
#[path = "support/decisions.rs"]
mod decisions;

use builders::*;
use decisions::{Given, given};
use otherix_commands::config::ClusterConfig;
use otherix_commands::domain::{Rejection, Reply, answer, decide};
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode, LAST_REPORT};
use otherix_schemas::event::Event;
use otherix_schemas::network::{Egress, NetworkDeleted, NetworkEvent, NetworkSpec, OverlaySpec, Ownership};
use otherix_schemas::node::{
    INCARNATION_AHEAD_MAX, NodeCommand, NodeCondition, NodeConditionKind, NodeConditionsChanged, NodeEvent,
    NodeReconciled, REPORT_NUMBER_MAX, ReportNumber,
};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{Mtu, VniRange};

#[test]
fn rejects_duplicate_network_names() {
    given([]).when(&create(1, "net", managed("br0"))).then([created(1, "net", managed("br0"))]);
    given([created(1, "Net", managed("br0"))])
        .when(&create(2, "nET", managed("br1")))
        .then_rejected(Rejection::NameTaken { name: name("nET"), other: network_id(1) });
}

#[test]
fn names_are_equal_however_their_letters_are_encoded() {
    let (composed, decomposed) = ("café", "CAFE\u{301}");
    given([created(1, composed, managed("br0"))])
        .when(&create(2, decomposed, managed("br1")))
        .then_rejected(Rejection::NameTaken { name: name(decomposed), other: network_id(1) });
    // An earlier version recorded both; the name is in use until both are deleted.
    let both = [created(1, composed, managed("br0")), created(2, decomposed, managed("br1"))];
    let one = given(both.clone().into_iter().chain([deleted(2, decomposed)]));
    one.when(&create(3, "Café", managed("br2")))
        .then_rejected(Rejection::NameTaken { name: name("Café"), other: network_id(1) });
    given(both.into_iter().chain([deleted(1, composed), deleted(2, decomposed)]))
        .when(&create(3, "Café", managed("br2")))
        .then([created(3, "Café", managed("br2"))]);
}

#[test]
fn deletion_frees_name_and_bridge() {
    given([node_joined(1), created(1, "net", managed("br0")), deleted(1, "net")])
        .when(&create(2, "net", managed("br0")))
        .then([created(2, "net", managed("br0"))]);
}

#[test]
fn only_unmanaged_networks_share_a_bridge() {
    let taken = Rejection::BridgeTaken { bridge: bridge_name("br0"), other: name("a") };
    for (first, second, free) in [
        (unmanaged("br0"), unmanaged("br0"), true),
        (unmanaged("br0"), managed("br0"), false),
        (managed("br0"), unmanaged("br0"), false),
        (managed("br0"), managed("br0"), false),
    ] {
        let when = given([created(1, "a", first)]).when(&create(2, "b", second.clone()));
        if free { when.then([created(2, "b", second)]) } else { when.then_rejected(taken.clone()) }
    }
}

#[test]
fn rejects_overlapping_nat_subnets() {
    let one = given([created(1, "a", nat("br0", "10.0.0.0/16"))]);
    one.when(&create(2, "b", nat("br1", "10.0.7.0/24"))).then_rejected(Rejection::SubnetOverlaps {
        subnet: subnet("10.0.7.0/24"),
        other: name("a"),
        taken: subnet("10.0.0.0/16"),
    });
    one.when(&create(2, "b", nat("br1", "10.1.0.0/24"))).then([created(2, "b", nat("br1", "10.1.0.0/24"))]);
    one.when(&create_overlay(2, "b", "10.0.7.0/24")).then([overlay_created(2, "b", 1000, "10.0.7.0/24")]);
    let deleted = given([created(1, "a", nat("br0", "10.0.0.0/16")), deleted(1, "a")]);
    deleted.when(&create(2, "b", nat("br0", "10.0.0.0/16"))).then([created(2, "b", nat("br0", "10.0.0.0/16"))]);
}

#[test]
fn assigns_each_vni_once() {
    let vni = |number: u32| number.try_into().unwrap();
    let vnis = VniRange::new(vni(1000), vni(1001)).unwrap();
    let config = ClusterConfig { vnis, ..ClusterConfig::default() };
    let first = [overlay_created(1, "a", 1000, "10.0.0.0/24"), deleted(1, "a")];
    let once = given(first.clone()).configured(config);
    once.when(&create_overlay(2, "a", "10.0.0.0/24")).then([overlay_created(2, "a", 1001, "10.0.0.0/24")]);
    let twice = first.into_iter().chain([overlay_created(2, "a", 1001, "10.0.0.0/24"), deleted(2, "a")]);
    given(twice).configured(config).when(&create_overlay(3, "a", "10.0.0.0/24")).then_rejected(Rejection::VnisUsedUp);
}

#[test]
fn derives_an_overlays_mtu_from_the_underlay() {
    let config = ClusterConfig { underlay_mtu: Mtu::try_from(9000).unwrap(), ..ClusterConfig::default() };
    let spec = NetworkSpec::Overlay(OverlaySpec {
        vni: 1000.try_into().unwrap(),
        subnet: subnet("10.0.0.0/24"),
        egress: Egress::None,
        mtu: Mtu::try_from(8890).unwrap(),
        dhcp: None,
        allow_spoofing: false,
    });
    given([]).configured(config).when(&create_overlay(1, "a", "10.0.0.0/24")).then([network_created(1, "a", spec)]);
}

#[test]
fn rejects_deletion_of_unknown_resources() {
    given([]).when(&delete(1)).then_rejected(Rejection::NoSuchNetwork(network_id(1)));
    let deleted_once = given([node_joined(1), created(1, "a", managed("br0")), deleted(1, "a")]);
    deleted_once.when(&delete(1)).then_rejected(Rejection::NoSuchNetwork(network_id(1)));
    given([created(1, "a", managed("br0"))])
        .when(&delete(1))
        .then([Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id: network_id(1), name: name("a") }))]);
}

#[test]
fn rejects_duplicate_node_names() {
    given([]).when(&join(1, "node-1")).then([node_joined(1)]);
    given([node_joined(1)]).when(&join(1, "node-1")).then([]);
    given([node_joined(1)])
        .when(&join(1, "node-2"))
        .then_rejected(Rejection::NodeHasName { node: node_id(1), name: node_name("node-1") });
    given([node_joined(1)]).when(&join(2, "NODE-1")).then_rejected(Rejection::NodeNameTaken(node_name("NODE-1")));
}

#[test]
fn records_only_changes_of_presence() {
    let joined = || given([node_joined(1), node_joined(2)]);
    joined().when(&presence(&[], &[1, 2])).then([]);
    joined().when(&presence(&[1], &[2])).then([unreachable(1)]);
    joined().when(&presence(&[1, 1, 2], &[])).then([unreachable(1), unreachable(2)]);
    let one_unreachable = || given([node_joined(1), node_joined(2), unreachable(1)]);
    one_unreachable().when(&presence(&[1], &[])).then([]);
    one_unreachable().when(&presence(&[2], &[1])).then([unreachable(2), reachable(1)]);
    joined().when(&presence(&[1], &[1])).then([unreachable(1), reachable(1)]);
}

#[test]
fn records_only_changes_of_conditions_of_members() {
    use NodeConditionKind::{Contradiction, SetBack};
    let change = |node, kinds: &[NodeConditionKind], detail: &str| {
        let condition = |kind: &NodeConditionKind| NodeCondition { kind: *kind, detail: detail.to_owned() };
        NodeConditionsChanged { node_id: node_id(node), conditions: kinds.iter().map(condition).collect() }
    };
    let record = |changes: &[NodeConditionsChanged]| Command::Node(NodeCommand::RecordConditions(changes.to_vec()));
    let (one, both) = (change(1, &[SetBack], "a"), change(1, &[SetBack, Contradiction], "a"));
    let joined = || given([node_joined(1), node_joined(2), node_joined(3), node_removed(3)]);
    let others = [change(2, &[], ""), change(3, &[SetBack], "a"), change(9, &[SetBack], "a")];
    joined().when(&record(&others)).then([]);
    joined()
        .when(&record(&[one.clone(), change(2, &[SetBack], "a")]))
        .then([one.clone().into(), change(2, &[SetBack], "a").into()]);
    let present = || given([node_joined(1), one.clone().into()]);
    present().when(&record(&[change(1, &[SetBack], "another detail")])).then([]);
    present().when(&record(std::slice::from_ref(&both))).then([both.into()]);
    let mut over = present();
    over.execute(&record(&[change(1, &[], "")])).unwrap();
    assert!(over.state.roster().conditions.is_empty());
    // They are no decisions for nodes, and end with the node.
    assert_eq!(over.state.decision_head().get(), 1);
    let mut removed = present();
    removed.execute(&remove(1)).unwrap();
    assert!(removed.state.roster().conditions.is_empty());
}

#[test]
fn rejects_presence_of_unknown_nodes() {
    for command in [presence(&[1, 7], &[]), presence(&[], &[7])] {
        given([node_joined(1)]).when(&command).then_rejected(Rejection::NoSuchNode(node_id(7)));
    }
}

#[test]
fn records_a_thousand_unreachable_nodes_in_one_decision() {
    let all: Vec<u128> = (0..1000).collect();
    let events: Vec<Event> = all.iter().map(|id| unreachable(*id)).collect();
    given(all.iter().map(|id| node_joined(*id))).when(&presence(&all, &[])).then(events);
}

#[test]
fn a_join_or_report_makes_a_node_reachable() {
    let mut given = given([node_joined(1), created(1, "a", managed("br0")), unreachable(1)]);
    given.when(&join(1, "node-1")).then([reachable(1)]);
    let ready = [outcome(1, 2, Outcome::Ready)];
    given.when(&report(1, 1, 1, ready.clone())).then([reachable(1), reconciled(1, 1, 1, ready.clone())]);
    given.when(&report(1, 1, 1, [])).then([reachable(1)]);
    given.execute(&report(1, 1, 1, ready.clone())).unwrap();
    given.when(&report(1, 1, 1, ready.clone())).then([]);
    given.record(unreachable(1));
    // Even a repeated report.
    given.when(&report(1, 1, 1, ready)).then([reachable(1)]);
}

/// Decides commands a millisecond apart. Returns how many were accepted before the first rejection.
fn accepted(given: &Given, commands: impl IntoIterator<Item = Command>) -> (usize, Option<Rejection>) {
    let mut state = given.state.clone();
    let (header, start) = (&given.envelopes.last().unwrap().header, given.state.time().unwrap().unix_micros());
    let mut number = 0;
    for command in commands {
        let time = Timestamp::from_unix_micros(start + i64::try_from(number).unwrap() * 1000).unwrap();
        match decide(&state, &given.config, time, &command) {
            Ok(decision) => {
                for event in decision.events {
                    let header = Header { position: state.position().next(), time, ..header.clone() };
                    state.evolve(&EventEnvelope { header, event });
                }
            }
            Err(rejection) => return (number, Some(rejection)),
        }
        number += 1;
    }
    (number, None)
}

#[test]
fn limits_flapping_nodes() {
    let statuses = [Outcome::Ready, Outcome::Failed("broken".to_owned())].into_iter().cycle();
    let reports = (1..=200).zip(statuses).map(|(sequence, status)| report(1, 1, sequence, [outcome(1, 2, status)]));
    let (count, rejection) = accepted(&one_of_each(false), reports);
    // The first status is free, and 60 may revoke the one before.
    assert_eq!(count, 61);
    let Some(Rejection::TooManyChanges { node, retry_after_ms }) = rejection else { panic!("{rejection:?}") };
    assert_eq!(node, node_id(1));
    assert!((400..=500).contains(&retry_after_ms), "{retry_after_ms}");
    let refusal = ErrorBody::from(&Rejection::TooManyChanges { node, retry_after_ms }).error;
    assert_eq!(refusal.code, ErrorCode::Unavailable);
    assert_eq!(refusal.details["retry_after_ms"], retry_after_ms);
}

#[test]
fn never_limits_new_statuses() {
    let mut given = given([node_joined(1)]);
    for number in 1..=200 {
        given.record(created(number, &format!("net-{number}"), managed(&format!("br{number}"))));
    }
    let statuses = [Outcome::Pending("waiting".to_owned()), Outcome::Ready];
    let reports = (0..400u64).map(|sequence| {
        let status = statuses[usize::from(sequence % 2 == 1)].clone();
        report(1, 1, sequence + 1, [outcome(u128::from(sequence / 2 + 1), sequence / 2 + 2, status)])
    });
    assert_eq!(accepted(&given, reports), (400, None));
}

/// A node and a network at generation 2, which is deleted at 3 if `is_deleted`.
fn one_of_each(is_deleted: bool) -> decisions::Given {
    let mut given = given([node_joined(1), created(1, "a", managed("br0"))]);
    if is_deleted {
        given.record(deleted(1, "a"));
    }
    given
}

#[test]
fn records_only_changed_results() {
    let mut given = one_of_each(false);
    let ready = report(1, 1, 1, [outcome(1, 2, Outcome::Ready)]);
    let envelope = reconciled(1, 1, 1, [outcome(1, 2, Outcome::Ready)]);
    given.when(&ready).then([envelope.clone()]);
    given.record(envelope);
    given.when(&ready).then([]);
    given.when(&report(1, 1, 2, [outcome(1, 2, Outcome::Ready)])).then([]);
    let failed = outcome(1, 2, Outcome::Failed("broken".to_owned()));
    given.when(&report(1, 1, 2, [failed.clone()])).then([reconciled(1, 1, 2, [failed])]);
}

#[test]
fn ignores_outdated_reports() {
    let mut given = one_of_each(false);
    given.record(reconciled(1, 2, 5, [outcome(1, 2, Outcome::Ready)]));
    let failed = || outcome(1, 2, Outcome::Failed("broken".to_owned()));
    given.when(&report(1, 2, 5, [failed()])).then([]);
    given.when(&report(1, 1, 9, [failed()])).then([]);
    given.when(&report(1, 3, 1, [failed()])).then([reconciled(1, 3, 1, [failed()])]);
}

#[test]
fn tells_what_makes_a_report_outdated() {
    let mut given = one_of_each(false);
    let outdated = |given: &Given, command: &Command| {
        let decision = given.decision(command).unwrap();
        let answer = answer(&given.state, decisions::IDENTITY, command, decision.unknown, &[]);
        let Reply::Receipt(receipt) = answer.data else { panic!("{answer:?}") };
        receipt.outdated.map(|last| (last.incarnation, last.sequence))
    };
    assert_eq!(outdated(&given, &report(1, 1, 1, [])), None);
    given.record(reconciled(1, 2, 5, [outcome(1, 2, Outcome::Ready)]));
    for (incarnation, sequence, is_outdated) in [(2, 5, true), (2, 4, true), (1, 9, true), (2, 6, false), (3, 1, false)]
    {
        // Also without a result that differs.
        for results in [vec![], vec![outcome(1, 2, Outcome::Failed("broken".to_owned()))]] {
            let last = outdated(&given, &report(1, incarnation, sequence, results));
            assert_eq!(last, is_outdated.then_some((2, 5)), "{incarnation} {sequence}");
        }
    }
}

#[test]
fn rejects_report_numbers_out_of_range() {
    let mut given = one_of_each(false);
    let number = |incarnation, sequence| ReportNumber { incarnation, sequence };
    let failed = || outcome(1, 2, Outcome::Failed("broken".to_owned()));
    let rejected = |given: &Given, (incarnation, sequence), last| {
        given.when(&report(1, incarnation, sequence, [failed()])).then_rejected(Rejection::ReportOutOfRange {
            node: node_id(1),
            number: number(incarnation, sequence),
            last,
        });
    };
    let most = INCARNATION_AHEAD_MAX;
    for out_of_range in [(u64::MAX, 1), (most + 1, 1), (1, u64::MAX), (1, REPORT_NUMBER_MAX + 1)] {
        rejected(&given, out_of_range, None);
    }
    given.record(reconciled(1, most, REPORT_NUMBER_MAX, [failed()]));
    rejected(&given, (2 * most + 1, 1), Some(number(most, REPORT_NUMBER_MAX)));
    let ready = || [outcome(1, 2, Outcome::Ready)];
    given.when(&report(1, 2 * most, 1, ready())).then([reconciled(1, 2 * most, 1, ready())]);
    let rejection =
        Rejection::ReportOutOfRange { node: node_id(1), number: number(u64::MAX, 1), last: Some(number(7, 2)) };
    let body = ErrorBody::from(&rejection).error;
    assert_eq!(body.code, ErrorCode::ValidationFailed);
    assert_eq!(body.details[LAST_REPORT], serde_json::json!({"incarnation": 7, "sequence": 2}));
    assert!(body.message.contains("node.json") && body.details["fields"]["incarnation"].is_array(), "{body:?}");
}

/// Version 0.1 recorded any number: after the highest, it recorded nothing of the node any more.
#[test]
fn a_recorded_number_out_of_range_does_not_silence_its_node() {
    let failed = || outcome(1, 2, Outcome::Failed("broken".to_owned()));
    for (incarnation, sequence) in [(u64::MAX, 1), (u64::MAX, u64::MAX), (1 << 60, 3), (9, u64::MAX)] {
        let mut given = one_of_each(false);
        given.record(reconciled(1, 8, 4, [outcome(1, 2, Outcome::Ready)]));
        given.record(reconciled(1, incarnation, sequence, [failed()]));
        let ready = || [outcome(1, 2, Outcome::Ready)];
        given.when(&report(1, 8, 4, ready())).then([]);
        given.when(&report(1, 9, 1, ready())).then([reconciled(1, 9, 1, ready())]);
    }
}

#[test]
fn rejects_impossible_outcomes() {
    let impossible = [
        (false, outcome(1, 2, Outcome::Removed)),
        (false, outcome(1, 3, Outcome::Ready)),
        (true, outcome(1, 3, Outcome::Ready)),
        (true, outcome(1, 2, Outcome::Removed)),
        (false, outcome(9, 2, Outcome::Ready)),
    ];
    for (is_deleted, result) in impossible {
        let given = one_of_each(is_deleted);
        let decision = given.decision(&report(1, 1, 1, [result.clone()])).unwrap();
        assert_eq!((decision.events, decision.unknown), (vec![], vec![result.resource]), "{result:?}");
    }
    one_of_each(false).when(&report(7, 1, 1, [])).then_rejected(Rejection::NoSuchNode(node_id(7)));
}

#[test]
fn keeps_a_deleted_network_until_every_node_has_removed_it() {
    let mut given = given([node_joined(1), node_joined(2), created(1, "a", managed("br0")), deleted(1, "a")]);
    let removed = |node| {
        let results = vec![outcome(1, 4, Outcome::Removed)];
        Event::Node(NodeEvent::Reconciled(NodeReconciled {
            node_id: node_id(node),
            incarnation: 1,
            sequence: 1,
            results,
        }))
    };
    given.when(&report(1, 1, 1, [outcome(1, 4, Outcome::Removed)])).then([removed(1)]);
    given.record(removed(1));
    given.when(&report(2, 1, 1, [outcome(1, 4, Outcome::Removed)])).then([removed(2)]);
    given.record(removed(2));
    given.when(&report(2, 1, 2, [outcome(1, 4, Outcome::Removed)])).then([]);
    assert_eq!(given.state.position(), Position::new(6));
}

#[test]
fn records_other_results_of_a_report_with_an_unknown_one() {
    let given = one_of_each(false);
    let results = [outcome(9, 2, Outcome::Ready), outcome(1, 2, Outcome::Ready), outcome(1, 2, Outcome::Removed)];
    given.when(&report(1, 1, 1, results)).then([reconciled(1, 1, 1, [outcome(1, 2, Outcome::Ready)])]);
}

#[test]
fn keeps_the_requested_ownership() {
    let NetworkSpec::Bridge(bridge) = builders::spec(managed("br0")) else { panic!() };
    assert_eq!(bridge.ownership, Ownership::Managed(Egress::None));
}

#[test]
fn reports_are_pending_from_reachable_nodes_only() {
    let is_pending = |events: &[Event]| given(events.iter().cloned()).state.has_pending_reports(network_id(1));
    let mut events = vec![node_joined(1), node_joined(2), created(1, "net", managed("br0"))];
    assert!(is_pending(&events));
    events.push(reconciled(1, 1, 1, [outcome(1, 3, Outcome::Pending("soon".to_owned()))]));
    assert!(is_pending(&events));
    let all_reported = [events.clone(), vec![reconciled(2, 1, 1, [outcome(1, 3, Outcome::Ready)])]].concat();
    assert!(!is_pending(&all_reported));
    assert!(!is_pending(&[events.clone(), vec![unreachable(2)]].concat()));
    assert!(is_pending(&[events, vec![unreachable(2), reachable(2)]].concat()));
    // Reports from before the deletion do not count for the removal; a removed network awaits none.
    let mut removed = [all_reported, vec![deleted(1, "net")]].concat();
    assert!(is_pending(&removed));
    removed.push(reconciled(1, 1, 2, [outcome(1, 6, Outcome::Removed)]));
    assert!(is_pending(&removed));
    removed.push(reconciled(2, 1, 2, [outcome(1, 6, Outcome::Removed)]));
    assert!(!is_pending(&removed));
}
