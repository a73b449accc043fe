//! The bench's output: progress on stderr, and a table with a last line of figures.

use std::io::{self, Write};
use std::time::Duration;

use crate::floors::Floors;
use crate::ready::{ReadyMeasurements, ReadySample};
use crate::rounds::Round;

/// Target: the median of a creation is at most this multiple of the sum of the floors' medians.
const TARGET: f64 = 4.0;

/// Characters of a line's label.
const WIDTH: usize = 52;

/// The median and the 99th percentile, in milliseconds, by nearest rank.
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

/// Reports progress on stderr; an error of writing is ignored.
pub(crate) fn report_progress(text: &str) {
    let _stderr_may_be_closed = writeln!(io::stderr(), "{text}");
}

/// Whether a target is met, as text.
pub(crate) const fn target_result(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

/// Prints a result on stdout.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// The table of creations and floors.
pub(crate) fn render(nodes: usize, measured: &ReadyMeasurements) -> String {
    let ReadyMeasurements { idle, warm } = measured;
    let mut lines = Vec::new();
    let (idle, p99) = sample(&mut lines, "one at a time, the machine idle before", idle);
    lines.push(String::new());
    let (warm, _) = sample(&mut lines, "one after the other", warm);
    lines.push(String::new());
    lines.push(format!(
        "create -> ready on {nodes} nodes: idle {idle}, p99 {p99:.2} ms; in a row {warm}; target at most {TARGET} times"
    ));
    lines.join("\n")
}

/// Appends the lines of one sample. Returns the comparison with the target, and the 99th percentile of the creations in
/// milliseconds.
fn sample(lines: &mut Vec<String>, title: &str, sample: &ReadySample) -> (String, f64) {
    let ReadySample { rounds, floors } = sample;
    let round = |part: fn(&Round) -> Duration| Figures::of(rounds.iter().map(part));
    let floor = |part: fn(&Floors) -> Duration| Figures::of(floors.iter().map(part));
    let ready = round(|round| round.ready);
    let floors = [floor(|floors| floors.append), floor(|floors| floors.round_trip), floor(|floors| floors.bridge)];
    let sum: f64 = floors.iter().map(|floor| floor.p50).sum();
    let [append, trip, bridge] = floors;
    lines.extend([
        head(&format!("{title} ({} each)", rounds.len())),
        line("create -> `ready` on all nodes", ready),
        line("  request -> acknowledged (durable)", round(|round| round.acknowledged)),
        line("  acknowledged -> first node `ready`", round(|round| round.first)),
        line("  first node -> last node `ready`", round(|round| round.last)),
        line("floor: durable append of the same event", append),
        line("floor: NATS request and reply", trip),
        line("floor: bridge created over netlink", bridge),
        format!("{:<WIDTH$}{sum:>9.2}", "floors, sum"),
    ]);
    let ratio = ready.p50 / sum;
    let result = target_result(ratio <= TARGET);
    (format!("p50 {:.2} ms, {ratio:.2} times the floors' {sum:.2} ms ({result})", ready.p50), ready.p99)
}

fn head(text: &str) -> String {
    format!("{text:<WIDTH$}{:>9}{:>9}", "p50 ms", "p99 ms")
}

fn line(text: &str, Figures { p50, p99 }: Figures) -> String {
    format!("{text:<WIDTH$}{p50:>9.2}{p99:>9.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let of = |count: u64| Figures::of((1..=count).rev().map(Duration::from_millis));
        assert_eq!(of(200), Figures { p50: 100.0, p99: 198.0 });
        assert_eq!(of(3), Figures { p50: 2.0, p99: 3.0 });
        assert_eq!(of(1), Figures { p50: 1.0, p99: 1.0 });
    }

    #[test]
    fn last_line_compares_medians_with_their_own_floors() {
        let ms = Duration::from_millis;
        let sample = |ready, each| {
            let round = Round { acknowledged: ms(1), first: ms(2), last: ms(3), ready: ms(ready) };
            let floors = Floors { append: ms(each), round_trip: ms(each), bridge: ms(each) };
            ReadySample { rounds: vec![round], floors: vec![floors] }
        };
        let last = |idle, warm| {
            let measured = ReadyMeasurements { idle: sample(idle, 2), warm: sample(warm, 1) };
            render(3, &measured).lines().last().unwrap().to_owned()
        };
        let [both, warm] = [last(24, 12), last(25, 13)];
        assert!(both.contains("idle p50 24.00 ms, 4.00 times the floors' 6.00 ms (met), p99 24.00 ms"), "{both}");
        assert!(both.contains("in a row p50 12.00 ms, 4.00 times the floors' 3.00 ms (met)"), "{both}");
        assert!(warm.contains("6.00 ms (missed)") && warm.contains("3.00 ms (missed)"), "{warm}");
    }
}
