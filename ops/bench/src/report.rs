//! What the bench says: a table that explains itself, and a last line of figures.

use std::io::{self, Write};
use std::time::Duration;

use crate::floors::Floors;
use crate::rounds::Round;

/// The median of a creation may be at most so many times the sum of the floors' medians.
const TARGET: f64 = 4.0;

/// The median and the 99th percentile, in milliseconds: of the values in order, the one that so many are not above.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    p50: f64,
    p99: f64,
}

impl Figures {
    fn of(values: impl Iterator<Item = Duration>) -> Self {
        let mut values: Vec<Duration> = values.collect();
        values.sort_unstable();
        let at = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100).saturating_sub(1);
            values.get(rank).map_or(0.0, |value| value.as_secs_f64() * 1000.0)
        };
        Self { p50: at(50), p99: at(99) }
    }
}

/// Says what is going on. Nobody may be listening.
pub(crate) fn say(text: &str) {
    let _nobody_listens = writeln!(io::stderr(), "{text}");
}

/// Prints what was measured.
pub(crate) fn print(nodes: usize, rounds: &[Round], floors: &[Floors]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", render(nodes, rounds, floors))?;
    out.flush()
}

fn render(nodes: usize, rounds: &[Round], floors: &[Floors]) -> String {
    let figures = |part: fn(&Round) -> Duration| Figures::of(rounds.iter().map(part));
    let floor = |part: fn(&Floors) -> Duration| Figures::of(floors.iter().map(part));
    let ready = figures(|round| round.ready);
    let (append, trip, bridge) = (floor(|f| f.append), floor(|f| f.round_trip), floor(|f| f.bridge));
    let sum = append.p50 + trip.p50 + bridge.p50;
    let ratio = if sum > 0.0 { ready.p50 / sum } else { f64::INFINITY };
    let verdict = if ratio <= TARGET { "met" } else { "missed" };
    let lines = [
        head(&format!("a managed bridge, created {} times on {nodes} nodes", rounds.len())),
        line("create -> `ready` on all nodes", ready),
        line("  request -> acknowledged, so durable", figures(|round| round.acknowledged)),
        line("  acknowledged -> first node `ready`", figures(|round| round.first)),
        line("  first node -> last node `ready`", figures(|round| round.last)),
        String::new(),
        head("floors, each once in every round, alone"),
        line("durable append of the same event", append),
        line("NATS request and answer", trip),
        line("bridge made over netlink", bridge),
        format!("{:<46}{sum:>9.2}", "sum of the floors"),
        String::new(),
        format!(
            "create -> ready on {nodes} nodes: p50 {:.2} ms, p99 {:.2} ms; {ratio:.2} times the floors' {sum:.2} ms (target: at most {TARGET}, {verdict})",
            ready.p50, ready.p99,
        ),
    ];
    lines.join("\n")
}

fn head(text: &str) -> String {
    format!("{text:<46}{:>9}{:>9}", "p50 ms", "p99 ms")
}

fn line(text: &str, Figures { p50, p99 }: Figures) -> String {
    format!("{text:<46}{p50:>9.2}{p99:>9.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let of = |count: u64| Figures::of((1..=count).rev().map(Duration::from_millis));
        assert_eq!(of(200), Figures { p50: 100.0, p99: 198.0 });
        assert_eq!(of(3), Figures { p50: 2.0, p99: 3.0 });
        assert_eq!(of(1), Figures { p50: 1.0, p99: 1.0 });
    }

    #[test]
    fn the_last_line_holds_the_median_against_the_floors() {
        let ms = Duration::from_millis;
        let round = Round { acknowledged: ms(1), first: ms(2), last: ms(3), ready: ms(6) };
        let floors = Floors { append: ms(1), round_trip: ms(1), bridge: ms(1) };
        let last = |round| render(3, &[round], &[floors]).lines().last().unwrap().to_owned();
        assert!(last(round).ends_with("2.00 times the floors' 3.00 ms (target: at most 4, met)"), "{}", last(round));
        assert!(last(Round { ready: ms(13), ..round }).ends_with("(target: at most 4, missed)"));
    }
}
