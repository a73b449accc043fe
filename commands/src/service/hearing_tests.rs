//! Promises of judging nodes by their silence, second by second, without a clock.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const WINDOW: Duration = Duration::from_secs(15);

fn node(number: u128) -> NodeId {
    NodeId::new(Uuid::from_u128(number))
}

fn roster(nodes: impl IntoIterator<Item = (u128, bool)>) -> Members {
    nodes.into_iter().map(|(number, reachable)| (node(number), reachable)).collect()
}

fn time(second: u64) -> Option<Timestamp> {
    Timestamp::from_unix_micros(i64::try_from(second).unwrap() * 1_000_000).ok()
}

/// A table, and the seconds since it was made.
struct Bench {
    hearing: Hearing,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { hearing: Hearing::new(WINDOW), start: Instant::now() }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    fn hear(&mut self, number: u128, second: u64) {
        self.hearing.hear(node(number), self.at(second), time(second));
    }

    /// Looks at each of these seconds, and says at which a node fell silent first.
    fn first_silence(
        &mut self,
        seconds: impl IntoIterator<Item = u64>,
        roster: &Members,
    ) -> Option<(u64, Vec<UnreachableNode>)> {
        seconds.into_iter().find_map(|second| {
            let silent = self.hearing.silent(self.at(second), roster);
            (!silent.is_empty()).then_some((second, silent))
        })
    }
}

#[test]
fn three_missed_signs_of_life_are_a_silence() {
    let (mut bench, roster) = (Bench::new(), roster([(1, true)]));
    assert_eq!(bench.first_silence(0..=2, &roster), None);
    bench.hear(1, 3);
    let silence = UnreachableNode { node_id: node(1), last_heard_at: time(3) };
    assert_eq!(bench.first_silence(3..60, &roster), Some((18, vec![silence])));
}

#[test]
fn a_control_plane_that_has_just_started_judges_nobody_before_a_full_window() {
    let (mut bench, roster) = (Bench::new(), roster((0..1000).map(|number| (number, true))));
    let (second, silent) = bench.first_silence(0..60, &roster).unwrap();
    assert_eq!((second, silent.len()), (15, 1000), "all at once");
    assert!(silent.iter().all(|silence| silence.last_heard_at.is_none()));
}

#[test]
fn a_node_that_joins_has_a_full_window() {
    let mut bench = Bench::new();
    assert_eq!(bench.first_silence(0..100, &roster([])), None);
    assert_eq!(bench.first_silence(100..200, &roster([(1, true)])).unwrap().0, 115);
}

#[test]
fn who_was_stopped_or_cut_off_begins_anew() {
    let (mut bench, roster) = (Bench::new(), roster([(1, true)]));
    bench.hear(1, 0);
    assert_eq!(bench.first_silence(0..=14, &roster), None);
    // Stopped for a minute, then going on.
    assert_eq!(bench.first_silence(75..120, &roster).unwrap().0, 90);
    // Cut off: the looks came in time.
    let mut bench = Bench::new();
    bench.hear(1, 0);
    assert_eq!(bench.first_silence(0..=14, &roster), None);
    bench.hearing.begin_anew();
    assert_eq!(bench.first_silence(15..120, &roster).unwrap().0, 30);
    // A look that is late by less than a sign of life is no break.
    let mut bench = Bench::new();
    bench.hear(1, 0);
    assert_eq!(bench.first_silence([0, 5, 10, 15], &roster).unwrap().0, 15);
}

#[test]
fn only_who_is_heard_now_is_back() {
    let (mut bench, gone) = (Bench::new(), roster([(1, false), (2, false), (3, true)]));
    assert_eq!(bench.first_silence(0..=2, &gone), None);
    assert_eq!(bench.hearing.back(bench.at(2), &gone), [], "nobody was heard");
    bench.hear(2, 3);
    bench.hear(3, 3);
    assert_eq!(bench.hearing.back(bench.at(3), &gone), [node(2)]);
    assert_eq!(bench.hearing.back(bench.at(18), &gone), [], "that is long ago");
}

#[test]
fn what_is_kept_is_bounded_by_the_nodes_of_the_cluster() {
    let mut bench = Bench::new();
    for number in 0..10_000 {
        bench.hear(number, 1);
    }
    bench.hearing.silent(bench.at(1), &roster([(1, true)]));
    assert_eq!(bench.hearing.nodes.len(), 1);
}

proptest! {
    /// Whatever is heard when, and however the looks are spread: nobody is condemned who was heard within the window or whom
    /// the table could not have heard, and with looks in time nobody escapes for longer than a window and a look.
    #[test]
    fn judgements_are_just(beats in prop::collection::vec(any::<bool>(), 120), looks in prop::collection::vec(0..8u8, 120)) {
        let (mut bench, roster) = (Bench::new(), roster([(1, true)]));
        let (mut heard, mut looked, mut since) = (None, None, None);
        for (second, (beat, look)) in (0u64..).zip(beats.into_iter().zip(looks)) {
            if beat && second % 9 == 0 {
                bench.hear(1, second);
                heard = Some(second);
            }
            if look != 0 {
                continue;
            }
            let condemned = !bench.hearing.silent(bench.at(second), &roster).is_empty();
            if looked.is_none_or(|looked| second - looked > 5) {
                since = Some(second);
            }
            looked = Some(second);
            let quiet = second - heard.max(since).unwrap();
            prop_assert_eq!(condemned, quiet >= 15, "at {}, heard {:?}, listening since {:?}", second, heard, since);
        }
    }
}
