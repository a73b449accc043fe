//! The bookkeeping against a model of the control plane, over a network that loses reports and answers.

use std::collections::BTreeMap;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const NETWORKS: u8 = 5;

#[derive(Clone, Debug)]
enum Happening {
    Observed { network: u8, generation: u64, outcome: Outcome },
    ReportLost,
    AnswerLost,
    Answered,
}

/// What the control plane keeps: the last word on each network, and the last report that it has recorded.
#[derive(Default)]
struct Control {
    envelope: BTreeMap<ResourceRef, ResourceOutcome>,
    last: u64,
    seen: BTreeMap<u64, NodeReport>,
}

impl Control {
    fn receive(&mut self, report: &NodeReport) {
        let same = self.seen.entry(report.sequence).or_insert_with(|| report.clone());
        assert_eq!(same, report, "a report that is repeated is the same");
        if report.sequence == self.last {
            return;
        }
        assert_eq!(report.sequence, self.last + 1, "one is in flight at a time");
        self.last = report.sequence;
        assert!(!report.results.is_empty());
        for outcome in &report.results {
            let before = self.envelope.insert(outcome.resource, outcome.clone());
            assert_ne!(before.as_ref(), Some(outcome), "only what differs is sent");
        }
    }
}

fn network(number: u8) -> ResourceRef {
    ResourceRef::Network(NetworkId::new(Uuid::from_u128(number.into())))
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let text = || prop_oneof![Just("a".to_owned()), Just("b".to_owned())];
    prop_oneof![Just(Outcome::Ready), text().prop_map(Outcome::Failed), text().prop_map(Outcome::Pending)]
}

fn happening() -> impl Strategy<Value = Happening> {
    let observed = (0..NETWORKS, 1..3u64, outcome()).prop_map(|(network, generation, outcome)| Happening::Observed {
        network,
        generation,
        outcome,
    });
    prop_oneof![
        3 => observed,
        1 => Just(Happening::ReportLost),
        1 => Just(Happening::AnswerLost),
        2 => Just(Happening::Answered),
    ]
}

fn reporter() -> Reporter {
    Reporter::new(NodeId::new(Uuid::nil()), 3)
}

fn exchange(reporter: &mut Reporter, control: &mut Control, answered: bool) -> bool {
    let Some(report) = reporter.report() else { return false };
    control.receive(report);
    if answered {
        reporter.answered(&ReportReceipt { unknown: Vec::new() });
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn in_the_end_control_knows_the_last_word(happenings in prop::collection::vec(happening(), 0..60)) {
        let (mut reporter, mut control) = (reporter(), Control::default());
        let mut truth = BTreeMap::new();
        for happening in happenings {
            match happening {
                Happening::Observed { network: number, generation, outcome } => {
                    let network = network(number);
                    let outcome = ResourceOutcome::new(network, Position::new(generation), outcome);
                    truth.insert(network, outcome.clone());
                    reporter.observe(outcome);
                }
                Happening::ReportLost => {
                    reporter.report();
                }
                Happening::AnswerLost => {
                    exchange(&mut reporter, &mut control, false);
                }
                Happening::Answered => {
                    exchange(&mut reporter, &mut control, true);
                }
            }
        }
        while exchange(&mut reporter, &mut control, true) {}
        prop_assert_eq!(control.envelope, truth);
    }
}

fn observed(number: u8, outcome: Outcome) -> ResourceOutcome {
    ResourceOutcome::new(network(number), Position::new(1), outcome)
}

#[test]
fn removed_and_unknown_networks_are_settled_and_no_others() {
    let mut reporter = reporter();
    reporter.observe(observed(1, Outcome::Removed));
    reporter.observe(observed(2, Outcome::Ready));
    reporter.observe(observed(3, Outcome::Ready));
    reporter.report().unwrap();
    let settled = reporter.answered(&ReportReceipt { unknown: vec![network(3)] });
    assert_eq!(settled, [network(1), network(3)]);
    assert_eq!(reporter.report(), None);
}

#[test]
fn many_outcomes_go_in_several_reports() {
    let mut reporter = reporter();
    let ids = (0..450).map(|number| ResourceRef::Network(NetworkId::new(Uuid::from_u128(number))));
    for network in ids {
        reporter.observe(ResourceOutcome::new(network, Position::new(1), Outcome::Ready));
    }
    let mut sizes = Vec::new();
    while let Some(report) = reporter.report() {
        sizes.push(report.results.len());
        reporter.answered(&ReportReceipt { unknown: Vec::new() });
    }
    assert_eq!(sizes, [100, 100, 100, 100, 50]);
}
