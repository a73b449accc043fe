//! Reports that are longer than one event may be.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed assumption is a failed test")]

#[path = "support/builders.rs"]
mod builders;
#[path = "support/decisions.rs"]
mod decisions;

use std::collections::BTreeSet;

use builders::*;
use decisions::{Given, given};
use otherix_schemas::event::Event;
use otherix_schemas::node::{NodeEvent, REPORT_BYTES_MAX};
use otherix_schemas::outcome::{Outcome, ResourceOutcome};
use otherix_tlog::tile::ENTRY_MAX;

const NETWORKS: u64 = 78;

fn cluster() -> Given {
    let mut given = given([node_joined(1)]);
    for number in 1..=NETWORKS {
        given.record(created(u128::from(number), &format!("net-{number}"), managed(&format!("br{number}"))));
    }
    given
}

/// As long as outcomes can be: characters that JSON has to escape.
fn long(number: u64) -> ResourceOutcome {
    let outcome = outcome(u128::from(number), number + 1, Outcome::Failed("\u{1}".repeat(1024)));
    ResourceOutcome { warnings: vec!["\u{1}".repeat(256); 4], ..outcome }
}

/// The results of these events, none of which is longer than an entry of the log.
fn recorded(given: &mut Given, events: Vec<Event>) -> Vec<Vec<ResourceOutcome>> {
    let mut all = Vec::new();
    for event in events {
        given.record(event.clone());
        let encoded = given.envelopes.last().unwrap().encode().unwrap().len();
        // Names and a trace context are added to what tests have.
        assert!(encoded + 4096 <= ENTRY_MAX, "{encoded} bytes");
        let Event::Node(NodeEvent::Reconciled(reconciled)) = event else { panic!("{event:?}") };
        assert_eq!(reconciled.incarnation, 1);
        all.push(reconciled.results);
    }
    all
}

#[test]
fn a_long_report_is_several_events_that_each_fit_an_entry_of_the_log() {
    let mut given = cluster();
    let results: Vec<_> = (1..=NETWORKS).map(long).collect();
    let size = serde_json::to_vec(&results).unwrap().len();
    assert!((REPORT_BYTES_MAX * 9 / 10..REPORT_BYTES_MAX).contains(&size), "{size}");
    let command = report(1, 1, 1, results.clone());
    let events = given.when(&command).result.unwrap();
    let parts = recorded(&mut given, events);
    assert!(parts.len() > 10, "{}", parts.len());
    assert_eq!(parts.concat(), results, "everything is recorded, in its order");
    // It is recorded once, and then is outdated.
    given.when(&command).then([]);
}

#[test]
fn a_long_report_takes_from_the_allowance_once() {
    let mut given = cluster();
    let ready = (1..=NETWORKS).map(|number| outcome(u128::from(number), number + 1, Outcome::Ready));
    given.execute(&report(1, 1, 1, ready)).unwrap();
    let mut first = given.clone();
    // One that revokes a single status.
    first.execute(&report(1, 1, 2, [outcome(1, 2, Outcome::Failed("broken".to_owned()))])).unwrap();
    let events = given.when(&report(1, 1, 2, (1..=NETWORKS).map(long))).result.unwrap();
    let parts = recorded(&mut given, events);
    let numbers: BTreeSet<_> = parts.iter().flatten().map(|result| result.generation).collect();
    assert_eq!((parts.len() > 10, numbers.len() as u64), (true, NETWORKS));
    let allowance = |given: &Given| given.state.nodes().get(&node_id(1)).unwrap().allowance;
    assert_eq!(allowance(&given), allowance(&first));
}
