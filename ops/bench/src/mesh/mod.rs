//! The mesh device compared with other userspace WireGuards: TCP through the tunnel and through a VXLAN in it, between
//! two namespaces of this machine. All are set up first and measured alternately, so that other load on the machine
//! affects all equally.
//!
//! Rates depend on other load; processor time per gigabit, of both engines and both ends of `iperf3`, depends on it
//! less.

mod hub;
pub(crate) mod idle;
mod node;
mod pair;
mod peers;

use std::path::Path;

use self::pair::{IperfRun, Pair, WireguardEngine};
use crate::BenchError;
use crate::report::{report_progress, target_result};

/// Measurements of each engine under each load.
const ROUNDS: u32 = 3;

/// The traffic of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TunnelLoad {
    title: &'static str,
    vxlan: bool,
    streams: u32,
    /// Whether the underlay segments UDP itself, as network cards with UDP segmentation offload do.
    segmentation: bool,
}

const LOADS: [TunnelLoad; 6] = [
    TunnelLoad { title: "tunnel, 1 stream", vxlan: false, streams: 1, segmentation: true },
    TunnelLoad { title: "tunnel, 4 streams", vxlan: false, streams: 4, segmentation: true },
    TunnelLoad { title: "VXLAN over it, 1 stream", vxlan: true, streams: 1, segmentation: true },
    TunnelLoad { title: "VXLAN over it, 4 streams", vxlan: true, streams: 4, segmentation: true },
    TunnelLoad { title: "tunnel, 1 stream, no segmentation", vxlan: false, streams: 1, segmentation: false },
    TunnelLoad { title: "VXLAN, 1 stream, no segmentation", vxlan: true, streams: 1, segmentation: false },
];

/// Targets: multiples of boringtun-cli's rate, with and without segmentation.
const TARGET: f64 = 5.0;
const TARGET_PLAIN: f64 = 2.5;

/// All runs of one engine under one load.
struct Measurements {
    load: TunnelLoad,
    engine: WireguardEngine,
    runs: Vec<IperfRun>,
}

/// Measures, and returns a table and a line for each target.
pub(crate) async fn run(bin_dir: &Path, seconds: u32) -> Result<String, BenchError> {
    let mut pairs = Vec::new();
    for engine in WireguardEngine::ALL {
        match Pair::up(engine, bin_dir)? {
            Some(pair) => pairs.push(pair),
            None => report_progress(&format!(
                "bench: {} is not installed, and is omitted ({})",
                engine.name(),
                engine.source()
            )),
        }
    }
    let mut cells = Vec::new();
    for load in LOADS {
        cells.extend(pairs.iter().map(|pair| Measurements { load, engine: pair.engine(), runs: Vec::new() }));
    }
    for round in 1..=ROUNDS {
        for load in LOADS {
            report_progress(&format!("bench: {}, {round} of {ROUNDS}", load.title));
            for pair in &pairs {
                tokio::task::yield_now().await; // a signal ends the bench here
                pair.set_segmentation(load.segmentation)?;
                let run = pair.measure(load.vxlan, load.streams, seconds)?;
                let measurements = cells.iter_mut().find(|cell| cell.load == load && cell.engine == pair.engine());
                if let Some(cell) = measurements {
                    cell.runs.push(run);
                }
            }
        }
    }
    drop(pairs);
    let mut lines = render(&cells);
    lines.push(String::new());
    lines.extend(peers::measure(bin_dir)?);
    Ok(lines.join("\n"))
}

fn render(cells: &[Measurements]) -> Vec<String> {
    let mut lines =
        vec![format!("{:<36}{:<18}{:>8}{:>18}{:>12}{:>9}", "", "engine", "Mb/s", "range", "CPU-s/Gbit", "retries")];
    for Measurements { load, engine, runs } in cells {
        let rates = sorted(runs.iter().map(|run| run.rate));
        lines.push(format!(
            "{:<36}{:<18}{:>8.0}{:>18}{:>12.3}{:>9.0}",
            load.title,
            engine.name(),
            median(&rates),
            format!("{:.0}..{:.0}", rates.first().unwrap_or(&0.0), rates.last().unwrap_or(&0.0)),
            median(&sorted(runs.iter().map(IperfRun::cost))),
            median(&sorted(runs.iter().map(|run| run.retransmits))),
        ));
    }
    lines.push(String::new());
    let rate = |load: TunnelLoad, engine| {
        let cell = cells.iter().find(|cell| cell.load == load && cell.engine == engine);
        cell.map(|cell| median(&sorted(cell.runs.iter().map(|run| run.rate))))
    };
    for load in LOADS {
        if let (Some(ours), Some(theirs)) = (rate(load, WireguardEngine::Ours), rate(load, WireguardEngine::Boringtun))
        {
            let target = if load.segmentation { TARGET } else { TARGET_PLAIN };
            let result = target_result(ours >= target * theirs);
            lines.push(format!("{}: {:.1} times boringtun-cli; target {target} ({result})", load.title, ours / theirs));
        }
    }
    let [one, four, vxlan_one, vxlan_four, ..] = LOADS;
    for (one, four, title) in [(one, four, "tunnel"), (vxlan_one, vxlan_four, "VXLAN")] {
        if let (Some(one), Some(four)) = (rate(one, WireguardEngine::Ours), rate(four, WireguardEngine::Ours)) {
            // On a shared machine, runs of the same load differ by up to 5 %.
            let result = target_result(four >= one * 0.95);
            lines.push(format!("{title}: 4 streams {:.2} times 1 stream; target not slower ({result})", four / one));
        }
    }
    lines
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_medians_with_targets() {
        let run = |rate| IperfRun { rate, gigabits: 10.0, seconds: 2.5, retransmits: 0.0 };
        let cell = |load, engine, rates: [f64; 3]| Measurements { load, engine, runs: rates.map(run).to_vec() };
        let [one, four, ..] = LOADS;
        let lines = render(&[
            cell(one, WireguardEngine::Ours, [4000.0, 9000.0, 5000.0]),
            cell(one, WireguardEngine::Boringtun, [1100.0, 1000.0, 10.0]),
            cell(four, WireguardEngine::Ours, [4000.0, 4000.0, 4000.0]),
        ]);
        assert!(
            lines.iter().any(|line| line == "tunnel, 1 stream: 5.0 times boringtun-cli; target 5 (met)"),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|line| line.starts_with("tunnel: 4 streams 0.80") && line.ends_with("(missed)")),
            "{lines:?}"
        );
        assert!(lines[1].contains("4000..9000") && lines[1].contains("0.250"), "{lines:?}");
    }
}
