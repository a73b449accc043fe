//! The reporter with a model of the control plane, over a network that loses reports and answers.

use std::collections::BTreeMap;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const NETWORKS: u8 = 5;

#[derive(Clone, Debug)]
enum Occurrence {
    Observed { network: u8, generation: u64, outcome: Outcome },
    ReportLost,
    AnswerLost,
    Answered,
}

/// The control plane: the reported outcome of each network, and the reports that it has received.
#[derive(Default)]
struct ControlPlaneModel {
    outcomes: BTreeMap<ResourceRef, ResourceOutcome>,
    last_sequence: u64,
    received: BTreeMap<u64, NodeReport>,
}

impl ControlPlaneModel {
    fn receive(&mut self, report: &NodeReport) {
        let same = self.received.entry(report.sequence).or_insert_with(|| report.clone());
        assert_eq!(same, report, "a repeated report is unchanged");
        if report.sequence == self.last_sequence {
            return;
        }
        assert_eq!(report.sequence, self.last_sequence + 1, "one report is in flight at a time");
        self.last_sequence = report.sequence;
        assert!(!report.results.is_empty());
        for outcome in &report.results {
            let before = self.outcomes.insert(outcome.resource, outcome.clone());
            assert_ne!(before.as_ref(), Some(outcome), "only outcomes that differ are sent");
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

fn occurrence() -> impl Strategy<Value = Occurrence> {
    let observed = (0..NETWORKS, 1..3u64, outcome()).prop_map(|(network, generation, outcome)| Occurrence::Observed {
        network,
        generation,
        outcome,
    });
    prop_oneof![
        3 => observed,
        1 => Just(Occurrence::ReportLost),
        1 => Just(Occurrence::AnswerLost),
        2 => Just(Occurrence::Answered),
    ]
}

fn reporter() -> OutcomeReporter {
    OutcomeReporter::new(NodeId::new(Uuid::nil()), 3)
}

fn exchange(reporter: &mut OutcomeReporter, control: &mut ControlPlaneModel, answered: bool) -> bool {
    let Some(report) = reporter.report() else { return false };
    control.receive(report);
    if answered {
        reporter.answered(&ReportReceipt { unknown: Vec::new(), outdated: None });
    }
    true
}

/// Has an outcome, and sends it this many times.
fn sent(reporter: &mut OutcomeReporter, generation: u64, times: u32) {
    reporter.observe(ResourceOutcome::new(network(1), Position::new(generation), Outcome::Ready));
    (0..times).for_each(|_| assert!(reporter.report().is_some()));
}

#[test]
fn a_duplicate_of_its_own_report_is_no_cause_to_renew() {
    let mut reporter = reporter();
    sent(&mut reporter, 1, 2);
    let own = reporter.report().unwrap().number();
    assert_eq!(reporter.outdated_by(own), None, "it was sent before, without an answer");
    reporter.answered(&ReportReceipt { unknown: Vec::new(), outdated: Some(own) });
    sent(&mut reporter, 2, 1);
    let own = reporter.report().map(NodeReport::number).unwrap();
    assert_eq!(own, ReportNumber { incarnation: 3, sequence: 2 });
}

#[test]
fn an_outdated_report_tells_whether_another_agent_is_running() {
    let mut reporter = reporter();
    sent(&mut reporter, 1, 1);
    let own = ReportNumber { incarnation: 3, sequence: 1 };
    for last in [own, ReportNumber { incarnation: 3, sequence: 9 }, ReportNumber { incarnation: 90, sequence: 1 }] {
        assert_eq!(reporter.outdated_by(last), Some(OutdatedCause::SetBack), "{last}");
    }
    // After a report that was accepted, or as a newer incarnation, it was not set back.
    let mut accepted = reporter.clone();
    accepted.answered(&ReportReceipt { unknown: Vec::new(), outdated: None });
    sent(&mut accepted, 2, 2);
    let other = ReportNumber { incarnation: 90, sequence: 1 };
    assert_eq!(accepted.outdated_by(other), Some(OutdatedCause::OtherAgent));
    reporter.renew(91);
    assert_eq!(reporter.report().unwrap().number(), ReportNumber { incarnation: 91, sequence: 1 });
    assert_eq!(reporter.outdated_by(ReportNumber { incarnation: 95, sequence: 1 }), Some(OutdatedCause::OtherAgent));
}

#[test]
fn a_newer_incarnation_reports_everything_again() {
    let mut reporter = reporter();
    sent(&mut reporter, 1, 1);
    reporter.answered(&ReportReceipt { unknown: Vec::new(), outdated: None });
    let outcome =
        |number, generation, outcome| ResourceOutcome::new(network(number), Position::new(generation), outcome);
    reporter.observe(outcome(2, 1, Outcome::Ready));
    reporter.observe(outcome(3, 1, Outcome::Ready));
    assert_eq!(reporter.report().unwrap().results.len(), 2);
    let failed = outcome(2, 1, Outcome::Failed("later".to_owned()));
    reporter.observe(failed.clone());
    reporter.renew(8);
    reporter.observe(outcome(1, 1, Outcome::Ready));
    let report = reporter.report().unwrap();
    assert_eq!(report.number(), ReportNumber { incarnation: 8, sequence: 1 });
    assert_eq!(report.results, [outcome(1, 1, Outcome::Ready), failed, outcome(3, 1, Outcome::Ready)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn control_plane_ends_up_with_the_last_outcomes(occurrences in prop::collection::vec(occurrence(), 0..60)) {
        let (mut reporter, mut control) = (reporter(), ControlPlaneModel::default());
        let mut last_outcomes = BTreeMap::new();
        for occurrence in occurrences {
            match occurrence {
                Occurrence::Observed { network: number, generation, outcome } => {
                    let network = network(number);
                    let outcome = ResourceOutcome::new(network, Position::new(generation), outcome);
                    last_outcomes.insert(network, outcome.clone());
                    reporter.observe(outcome);
                }
                Occurrence::ReportLost => {
                    reporter.report();
                }
                Occurrence::AnswerLost => {
                    exchange(&mut reporter, &mut control, false);
                }
                Occurrence::Answered => {
                    exchange(&mut reporter, &mut control, true);
                }
            }
        }
        while exchange(&mut reporter, &mut control, true) {}
        prop_assert_eq!(control.outcomes, last_outcomes);
    }
}

fn observed(number: u8, outcome: Outcome) -> ResourceOutcome {
    ResourceOutcome::new(network(number), Position::new(1), outcome)
}

#[test]
fn only_removed_and_unknown_networks_are_settled() {
    let mut reporter = reporter();
    reporter.observe(observed(1, Outcome::Removed));
    reporter.observe(observed(2, Outcome::Ready));
    reporter.observe(observed(3, Outcome::Ready));
    reporter.report().unwrap();
    let settled = reporter.answered(&ReportReceipt { unknown: vec![network(3)], outdated: None });
    assert_eq!(settled, [network(1), network(3)]);
    assert_eq!(reporter.report(), None);
}

#[test]
fn many_outcomes_are_split_into_several_reports() {
    let mut reporter = reporter();
    let ids = (0..450).map(|number| ResourceRef::Network(NetworkId::new(Uuid::from_u128(number))));
    for network in ids {
        reporter.observe(ResourceOutcome::new(network, Position::new(1), Outcome::Ready));
    }
    let mut sizes = Vec::new();
    while let Some(report) = reporter.report() {
        sizes.push(report.results.len());
        reporter.answered(&ReportReceipt { unknown: Vec::new(), outdated: None });
    }
    assert_eq!(sizes, [100, 100, 100, 100, 50]);
}
