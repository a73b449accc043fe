//! Pins when nodes become unreachable and reachable again, second by second, without a clock.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const WINDOW: Duration = Duration::from_secs(15);

fn node(number: u128) -> NodeId {
    NodeId::new(Uuid::from_u128(number))
}

fn members(nodes: impl IntoIterator<Item = (u128, bool)>) -> Members {
    nodes.into_iter().map(|(number, is_reachable)| (node(number), is_reachable)).collect()
}

fn time(second: u64) -> Option<Timestamp> {
    Timestamp::from_unix_micros(i64::try_from(second).unwrap() * 1_000_000).ok()
}

/// A detector, with times in seconds since its start.
struct Fixture {
    detector: FailureDetector,
    start: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self { detector: FailureDetector::new(WINDOW), start: Instant::now() }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    fn receive(&mut self, number: u128, second: u64) {
        self.detector.received(node(number), self.at(second), time(second));
    }

    /// Checks in each of these seconds. Returns the first in which a node is unreachable.
    fn first_failure(
        &mut self,
        seconds: impl IntoIterator<Item = u64>,
        members: &Members,
    ) -> Option<(u64, Vec<UnreachableNode>)> {
        seconds.into_iter().find_map(|second| {
            let unreachable = self.detector.check(self.at(second), members);
            (!unreachable.is_empty()).then_some((second, unreachable))
        })
    }
}

#[test]
fn a_node_is_unreachable_after_three_missed_heartbeats() {
    let (mut fixture, members) = (Fixture::new(), members([(1, true)]));
    assert_eq!(fixture.first_failure(0..=2, &members), None);
    fixture.receive(1, 3);
    let unreachable = UnreachableNode { node_id: node(1), last_heard_at: time(3) };
    assert_eq!(fixture.first_failure(3..60, &members), Some((18, vec![unreachable])));
}

#[test]
fn no_node_is_unreachable_within_a_window_after_the_start() {
    let (mut fixture, members) = (Fixture::new(), members((0..1000).map(|number| (number, true))));
    let (second, unreachable) = fixture.first_failure(0..60, &members).unwrap();
    assert_eq!((second, unreachable.len()), (15, 1000), "all at once");
    assert!(unreachable.iter().all(|node| node.last_heard_at.is_none()));
}

#[test]
fn a_new_member_has_a_full_window() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.first_failure(0..100, &members([])), None);
    assert_eq!(fixture.first_failure(100..200, &members([(1, true)])).unwrap().0, 115);
}

#[test]
fn an_interruption_does_not_count_and_grants_one_heartbeat() {
    let (mut fixture, members) = (Fixture::new(), members([(1, true)]));
    fixture.receive(1, 0);
    assert_eq!(fixture.first_failure(0..=14, &members), None);
    // The process was stopped for a minute: one second of the window was left.
    assert_eq!(fixture.first_failure(75..120, &members).unwrap().0, 81);
    // The connection was lost; checks were in time.
    let mut fixture = Fixture::new();
    fixture.receive(1, 0);
    assert_eq!(fixture.first_failure(0..=14, &members), None);
    fixture.detector.interrupted();
    assert_eq!(fixture.first_failure(15..120, &members).unwrap().0, 21);
    // A check that is late by less than a heartbeat is no interruption.
    let mut fixture = Fixture::new();
    fixture.receive(1, 0);
    assert_eq!(fixture.first_failure([0, 5, 10, 15], &members).unwrap().0, 15);
}

/// The time between the last check and a heartbeat is not counted twice when the next check is late.
#[test]
fn an_interruption_after_a_heartbeat_grants_no_more_than_one_heartbeat() {
    let (mut fixture, members) = (Fixture::new(), members([(1, true)]));
    assert_eq!(fixture.first_failure([0], &members), None);
    fixture.receive(1, 5);
    // The check in second 10 is late. From there on a window and a heartbeat.
    assert_eq!(fixture.first_failure(10..120, &members).unwrap().0, 30);
}

#[test]
fn repeated_interruptions_do_not_keep_a_silent_node_reachable() {
    let (mut fixture, members) = (Fixture::new(), members([(1, true)]));
    fixture.receive(1, 0);
    let failed = (0..1000).find(|second| {
        if second % 2 == 0 {
            fixture.detector.interrupted();
        }
        !fixture.detector.check(fixture.at(*second), &members).is_empty()
    });
    // Every other second counts: two windows of those.
    assert_eq!(failed, Some(59));
}

#[test]
fn only_a_recent_heartbeat_makes_a_node_reachable_again() {
    let (mut fixture, members) = (Fixture::new(), members([(1, false), (2, false), (3, true)]));
    assert_eq!(fixture.first_failure(0..=2, &members), None);
    assert_eq!(fixture.detector.reachable_again(fixture.at(2), &members), [], "nothing was received");
    fixture.receive(2, 3);
    fixture.receive(3, 3);
    assert_eq!(fixture.detector.reachable_again(fixture.at(3), &members), [node(2)]);
    assert_eq!(fixture.detector.reachable_again(fixture.at(18), &members), [], "a window later");
}

#[test]
fn memory_is_bounded_by_the_number_of_members() {
    let mut fixture = Fixture::new();
    for number in 0..10_000 {
        fixture.receive(number, 1);
    }
    fixture.detector.check(fixture.at(1), &members([(1, true)]));
    assert_eq!(fixture.detector.nodes.len(), 1);
}

proptest! {
    /// For any times of heartbeats and checks: a node is unreachable no sooner than after a window in which nothing was
    /// received from it, and no later than after two windows in which the detector was receiving.
    #[test]
    fn judgements_are_within_bounds(
        beats in prop::collection::vec(any::<bool>(), 120),
        checks in prop::collection::vec(0..8u8, 120),
    ) {
        let (mut fixture, members) = (Fixture::new(), members([(1, true)]));
        let (mut known, mut checked, mut receiving) = (None, None, 0);
        for (second, (beat, check)) in (0u64..).zip(beats.into_iter().zip(checks)) {
            if beat && second % 9 == 0 {
                fixture.receive(1, second);
                known = Some(second);
                receiving = 0;
            }
            if check != 0 {
                continue;
            }
            let is_unreachable = !fixture.detector.check(fixture.at(second), &members).is_empty();
            // Seconds of receiving since the node was last known, in the model.
            if let Some(checked) = checked.filter(|checked| second - checked <= 5) {
                receiving += second - known.map_or(checked, |known: u64| checked.max(known));
            }
            let first = *known.get_or_insert(second);
            checked = Some(second);
            prop_assert!(!is_unreachable || second - first >= 15, "too soon at {second}");
            prop_assert!(is_unreachable || receiving < 30, "too late at {second}");
        }
    }
}
