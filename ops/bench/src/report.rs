//! What the bench says: a table that explains itself, and a last line of figures.

use std::io::{self, Write};
use std::time::Duration;

use crate::Measured;
use crate::floors::Floors;
use crate::rounds::Round;

/// The median of a creation may be at most so many times the sum of the floors' medians.
const TARGET: f64 = 4.0;

/// The median and the 99th percentile, in milliseconds: of the values in order, the one that so many are not above.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Figures {
    pub(crate) fn of(values: impl Iterator<Item = Duration>) -> Self {
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
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// What was measured of creations.
pub(crate) fn render(nodes: usize, measured: &Measured) -> String {
    let Measured { rounds, between, in_a_row } = measured;
    let figures = |part: fn(&Round) -> Duration| Figures::of(rounds.iter().map(part));
    let ready = figures(|round| round.ready);
    let mut lines = vec![
        head(&format!("a managed bridge, created {} times on {nodes} nodes", rounds.len())),
        line("create -> `ready` on all nodes", ready),
        line("  request -> acknowledged, so durable", figures(|round| round.acknowledged)),
        line("  acknowledged -> first node `ready`", figures(|round| round.first)),
        line("  first node -> last node `ready`", figures(|round| round.last)),
    ];
    let sum = floors(&mut lines, "floors, one of each between creations (idle)", between);
    let quick = floors(&mut lines, "floors, one after the other (warm)", in_a_row);
    let verdict = |ratio: f64| if ratio <= TARGET { "met" } else { "missed" };
    let (idle, warm) = (ready.p50 / sum, ready.p50 / quick);
    lines.push(String::new());
    lines.push(format!(
        "create -> ready on {nodes} nodes: p50 {:.2} ms, p99 {:.2} ms; target at most {TARGET} times the floors: \
         {warm:.2} times the warm floors' {quick:.2} ms ({}), {idle:.2} times the idle floors' {sum:.2} ms ({})",
        ready.p50,
        ready.p99,
        verdict(warm),
        verdict(idle),
    ));
    lines.join("\n")
}

/// Adds the lines of the floors; gives the sum of their medians, in milliseconds.
fn floors(lines: &mut Vec<String>, title: &str, floors: &[Floors]) -> f64 {
    let figures = |part: fn(&Floors) -> Duration| Figures::of(floors.iter().map(part));
    let (append, trip) = (figures(|floors| floors.append), figures(|floors| floors.round_trip));
    let bridge = figures(|floors| floors.bridge);
    let sum = append.p50 + trip.p50 + bridge.p50;
    lines.extend([
        String::new(),
        head(title),
        line("durable append of the same event", append),
        line("NATS request and answer", trip),
        line("bridge made over netlink", bridge),
        format!("{:<46}{sum:>9.2}", "sum"),
    ]);
    sum
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
        let last = |ready| {
            let round = Round { acknowledged: ms(1), first: ms(2), last: ms(3), ready: ms(ready) };
            let floors = |each| vec![Floors { append: ms(each), round_trip: ms(each), bridge: ms(each) }];
            let measured = Measured { rounds: vec![round], between: floors(2), in_a_row: floors(1) };
            render(3, &measured).lines().last().unwrap().to_owned()
        };
        let apart = "8.00 times the warm floors' 3.00 ms (missed), 4.00 times the idle floors' 6.00 ms (met)";
        assert!(last(24).ends_with(apart), "{}", last(24));
        assert!(last(12).contains("3.00 ms (met)") && last(12).ends_with("(met)"), "{}", last(12));
        assert!(last(25).ends_with("(missed)"), "{}", last(25));
    }
}
