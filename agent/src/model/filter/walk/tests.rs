use super::*;
use crate::model::filter::expression::{Comparison, Expression, Field, LookupResult};
use crate::model::filter::packet::{Connection, Content, Device, Transport};
use crate::model::filter::value::Data;
use crate::model::filter::{Base, Chain};

fn packet() -> Packet {
    let (source, destination) = (Some([10, 20, 0, 5].into()), Some([203, 0, 113, 1].into()));
    let transport = Transport::Udp { source: 50_000, destination: 7 };
    let connection = Connection { is_new: true, is_reply: false, has_source_nat: false, source, destination };
    let input = Device { name: "br-app".to_owned(), index: 2, group: None, bridge: None };
    Packet {
        content: Content::Ipv4 { source, destination, transport },
        input: Some(input),
        output: None,
        connection,
        is_bridged: false,
        local: None,
    }
}

fn base(drops: bool) -> Option<Base> {
    Some(Base { hook: Hook::Forward, priority: 0, nat: false, drops, devices: Vec::new() })
}

fn verdict(verdict: Verdict) -> Expression {
    Expression::Verdict(verdict)
}

/// Matches packets with this mark.
fn mark_is(mark: u32) -> [Expression; 2] {
    let data = Data(mark.to_ne_bytes().to_vec());
    [
        Expression::Load { field: Field::MARK, to: 0 },
        Expression::Compare { from: 0, comparison: Comparison::Equal, data },
    ]
}

/// Sends the packet through a base chain with these rules and this policy, and a chain `other`.
fn send(drops: bool, rules: Vec<Vec<Expression>>, other: Vec<Vec<Expression>>) -> PacketOutcome {
    let chains = [
        ("c".to_owned(), Chain { base: base(drops), rules }),
        ("other".to_owned(), Chain { base: None, rules: other }),
    ];
    let table = ForeignTable {
        family: Family::Inet,
        name: "t".to_owned(),
        chains: chains.into(),
        sets: std::collections::BTreeMap::new(),
    };
    let filter = ForeignFilter { tables: vec![table] };
    let point = HookPoint { hook: Hook::Forward, family: Family::Ip, packet: packet(), before: None };
    Filter::new(&filter).send(&[point], &mut ConnectionState::new())
}

fn is_lost(outcome: &PacketOutcome, cause: DropCause) -> bool {
    outcome.lost.as_ref().is_some_and(|source| source.cause == cause)
}

#[test]
fn a_packet_that_nothing_accepts_meets_the_policy() {
    assert!(is_lost(&send(true, vec![], vec![]), DropCause::Policy));
    assert_eq!(send(false, vec![], vec![]), PacketOutcome::default());
    assert_eq!(send(true, vec![vec![verdict(Verdict::Accept)]], vec![]), PacketOutcome::default());
    let jump = || vec![vec![verdict(Verdict::Jump("other".to_owned()))], vec![verdict(Verdict::Reject)]];
    assert!(is_lost(&send(false, jump(), vec![]), DropCause::Rejects), "it comes back");
    assert_eq!(send(false, jump(), vec![vec![verdict(Verdict::Accept)]]), PacketOutcome::default());
    let goto = || vec![vec![verdict(Verdict::Goto("other".to_owned()))], vec![verdict(Verdict::Reject)]];
    assert_eq!(send(false, goto(), vec![]), PacketOutcome::default(), "it does not come back");
    assert!(is_lost(&send(true, goto(), vec![vec![verdict(Verdict::Return)]]), DropCause::Policy));
}

#[test]
fn what_a_rule_may_match_leads_both_ways() {
    let unknown = |then| vec![Expression::Unknown, verdict(then)];
    let outcome = send(false, vec![unknown(Verdict::Drop)], vec![]);
    assert_eq!((outcome.lost.is_none(), outcome.at_risk.len()), (true, 1));
    let outcome = send(true, vec![unknown(Verdict::Accept)], vec![]);
    assert_eq!((outcome.lost.is_none(), outcome.at_risk.len()), (true, 1));
    assert!(is_lost(&send(true, vec![unknown(Verdict::Drop)], vec![]), DropCause::Drops), "both ways end");
    assert_eq!(send(false, vec![unknown(Verdict::Accept)], vec![]), PacketOutcome::default());
    let outcome = send(false, vec![vec![verdict(Verdict::Queue)]], vec![]);
    assert_eq!((outcome.lost.is_none(), outcome.at_risk.len()), (true, 1));
}

#[test]
fn marks_that_a_rule_may_set_are_unknown() {
    let set = |is_certain: bool| {
        let change = Expression::ChangeMark { mask: u32::MAX, xor: 7 };
        if is_certain { vec![change] } else { vec![Expression::Unknown, change] }
    };
    let drop = || [mark_is(7).to_vec(), vec![verdict(Verdict::Drop)]].concat();
    assert!(is_lost(&send(false, vec![set(true), drop()], vec![]), DropCause::Drops));
    let outcome = send(false, vec![set(false), drop()], vec![]);
    assert_eq!((outcome.lost.is_none(), outcome.at_risk.len()), (true, 1));
    assert_eq!(send(false, vec![drop()], vec![]), PacketOutcome::default());
}

#[test]
fn rules_without_end_make_a_result_uncertain() {
    let rules = vec![vec![Expression::Never]; 60_000];
    let outcome = send(true, rules, vec![]);
    assert_eq!((outcome.lost.is_none(), outcome.at_risk.len()), (true, 1));
}

#[test]
fn a_map_of_verdicts_that_is_not_known_makes_the_result_uncertain() {
    let look_up = Expression::Lookup { set: "m".to_owned(), from: 0, result: LookupResult::Verdict, inverted: false };
    for drops in [true, false] {
        let outcome = send(drops, vec![vec![look_up.clone()]], vec![]);
        assert!(outcome.lost.is_none() && !outcome.at_risk.is_empty(), "policy drop: {drops}, {outcome:?}");
    }
}
