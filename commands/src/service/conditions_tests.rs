use NodeConditionKind::{Contradiction, DuplicateAgent};
use uuid::Uuid;

use super::*;

const WINDOW: Duration = Duration::from_secs(15);

fn node() -> NodeId {
    NodeId::new(Uuid::nil())
}

/// Conditions, what is recorded of them, and the time.
struct Fixture {
    conditions: Conditions,
    recorded: RecordedConditions,
    now: Instant,
    events: usize,
}

impl Fixture {
    fn new() -> Self {
        let (conditions, recorded) = (Conditions::new(WINDOW), RecordedConditions::new());
        Self { conditions, recorded, now: Instant::now(), events: 0 }
    }

    /// After some seconds, applies a heartbeat, and records what is to be recorded. Returns the kinds that are.
    fn heard(&mut self, seconds: u64, found: &[(NodeConditionKind, &str)]) -> Vec<NodeConditionKind> {
        self.now += Duration::from_secs(seconds);
        let found = found.iter().map(|(kind, detail)| (*kind, (*detail).to_owned()));
        self.conditions.heard(node(), found, self.now);
        self.check(0)
    }

    fn check(&mut self, seconds: u64) -> Vec<NodeConditionKind> {
        self.now += Duration::from_secs(seconds);
        for NodeConditionsChanged { node_id, conditions } in self.conditions.changes(None, &self.recorded, self.now) {
            self.events += 1;
            let conditions = conditions.into_iter().map(|it| (it.kind, it.detail)).collect();
            self.recorded.insert(node_id, conditions);
        }
        self.recorded.get(&node()).into_iter().flat_map(|conditions| conditions.keys().copied()).collect()
    }
}

#[test]
fn a_condition_is_recorded_at_once_and_over_when_it_is_not_seen_any_more() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.heard(0, &[]), []);
    assert_eq!(fixture.heard(1, &[(Contradiction, "one")]), [Contradiction]);
    // Another detail is no other condition.
    assert_eq!(fixture.heard(5, &[(Contradiction, "two"), (DuplicateAgent, "1 2")]), [DuplicateAgent, Contradiction]);
    assert_eq!(fixture.recorded[&node()][&Contradiction], "one");
    // Only every second heartbeat shows it, as of two agents.
    for _ in 0..5 {
        assert_eq!(fixture.heard(5, &[]), [DuplicateAgent, Contradiction]);
        assert_eq!(fixture.heard(5, &[(DuplicateAgent, ""), (Contradiction, "")]), [DuplicateAgent, Contradiction]);
    }
    assert_eq!(fixture.heard(10, &[(DuplicateAgent, "")]), [DuplicateAgent, Contradiction]);
    assert_eq!(fixture.heard(10, &[]), [DuplicateAgent]);
    assert_eq!(fixture.heard(10, &[]), []);
    assert_eq!(fixture.events, 4);
}

#[test]
fn a_recorded_condition_is_not_over_because_of_a_restart_or_a_silent_node() {
    let mut fixture = Fixture::new();
    fixture.recorded.insert(node(), [(DuplicateAgent, "1 2".to_owned())].into());
    assert_eq!(fixture.check(100), [DuplicateAgent], "nothing was heard since the start");
    assert_eq!(fixture.heard(0, &[]), [DuplicateAgent]);
    assert_eq!(fixture.heard(14, &[]), [DuplicateAgent]);
    assert_eq!(fixture.check(100), [DuplicateAgent], "the node is silent");
    assert_eq!(fixture.heard(0, &[]), [DuplicateAgent], "it is heard again, and may not have told all");
    assert_eq!(fixture.heard(14, &[]), [DuplicateAgent]);
    assert_eq!(fixture.heard(2, &[]), []);

    let mut fixture = Fixture::new();
    assert_eq!(fixture.heard(0, &[(Contradiction, "one")]), [Contradiction]);
    assert_eq!(fixture.check(1000), [Contradiction]);
    assert_eq!(fixture.events, 1);
}

#[test]
fn a_node_that_alternates_is_recorded_a_few_times_a_minute() {
    let mut fixture = Fixture::new();
    for number in 0..3600 {
        let found = [(Contradiction, "x"), (DuplicateAgent, "y")];
        fixture.heard(1, if number / 20 % 2 == 0 { &found } else { &[] });
    }
    assert!((60..=4 + 120).contains(&fixture.events), "{} events", fixture.events);
}

#[test]
fn details_are_short_and_have_no_control_characters() {
    let mut fixture = Fixture::new();
    fixture.heard(0, &[(Contradiction, &format!("a\u{1b}[31m\n{}", "ö".repeat(1000)))]);
    let detail = &fixture.recorded[&node()][&Contradiction];
    assert!(detail.len() <= CONDITION_DETAIL_MAX && detail.starts_with("a[31mö"), "{detail}");
    fixture.conditions.retain(|_| false);
    assert!(fixture.conditions.nodes.is_empty());
}

#[test]
fn what_was_seen_before_a_silence_is_recorded_once_it_may_be() {
    let mut fixture = Fixture::new();
    // Uses up the changes that are recorded in a row.
    for _ in 0..2 {
        assert_eq!(fixture.heard(0, &[(Contradiction, "one")]), [Contradiction]);
        assert_eq!((fixture.heard(8, &[]), fixture.heard(8, &[])), (vec![Contradiction], vec![]));
    }
    assert_eq!(fixture.heard(0, &[(Contradiction, "one")]), [Contradiction]);
    assert_eq!((fixture.heard(8, &[]), fixture.heard(8, &[])), (vec![Contradiction], vec![Contradiction]));
    assert_eq!(fixture.heard(0, &[(DuplicateAgent, "1 2")]), [Contradiction], "not yet");
    assert_eq!(fixture.check(20), [DuplicateAgent, Contradiction]);
}

#[test]
fn quiet_times_do_not_add_up() {
    let mut fixture = Fixture::new();
    for _ in 0..20 {
        fixture.heard(3600, &[(Contradiction, "one")]);
        fixture.heard(8, &[]);
        assert_eq!(fixture.heard(8, &[]), []);
    }
    let before = fixture.events;
    for number in 0..600 {
        let found = [(Contradiction, "one")];
        fixture.heard(1, if number / 20 % 2 == 0 { &found } else { &[] });
    }
    let events = fixture.events - before;
    assert!(events <= 4 + 20, "{events} events in ten minutes");
}
