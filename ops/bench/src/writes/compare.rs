//! Commands per second of otherix and of etcd, measured alternately on the same disk.
//!
//! otherix: `network.create` from request to answer, over NATS and with JSON, as any client sends it; a second row
//! sends an idempotency key with each, as the CLI does, so that its record is stored with the event. etcd: a
//! transaction over gRPC that puts 600 bytes under a new key if there is none. Each answers only when the result is
//! synced to the disk.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use super::control_plane::{ControlPlane, KeyMode};
use super::etcd::{Etcd, VALUE};
use super::load::{Rate, measure};
use super::{managed, median, scratch};
use crate::BenchError;
use crate::report::{report_progress, target_result};

/// How often each is measured.
const ROUNDS: u32 = 3;

/// Commands in flight, and the target for the ratio to etcd.
const LOADS: [(u32, f64); 3] = [(1, 1.0), (64, 1.5), (1024, 2.5)];

/// How long each measurement takes, after a warm-up of half a second.
const TIME: Duration = Duration::from_millis(2500);

/// The rates under one load.
struct Row {
    in_flight: u32,
    target: f64,
    etcd: Vec<Rate>,
    plain: Vec<Rate>,
    keyed: Vec<Rate>,
}

/// Measures, and returns a table.
pub(crate) async fn run(bin_dir: &Path) -> Result<String, BenchError> {
    let folder = scratch()?;
    let etcd = Etcd::start(folder.path()).await?;
    if etcd.is_none() {
        report_progress("bench: etcd is not installed (Debian package `etcd-server`): only otherix is measured");
    }
    let (control_plane, _) = ControlPlane::start(bin_dir, &folder.path().join("otherix")).await?;
    let mut rows: Vec<Row> = LOADS.map(|(in_flight, target)| Row::new(in_flight, target)).into();
    let (number, value) = (Cell::new(0), vec![b'x'; VALUE]);
    let next = || number.replace(number.get() + 1);
    let create = |key| {
        let body = managed(next());
        let control_plane = &control_plane;
        async move { control_plane.create(body, key).await.map(drop) }
    };
    for round in 1..=ROUNDS {
        for row in &mut rows {
            report_progress(&format!("bench: {} commands in flight, round {round} of {ROUNDS}", row.in_flight));
            if let Some(etcd) = &etcd {
                let put = |_| {
                    let (key, value) = (format!("/networks/net-{}", next()), &value);
                    async move { etcd.create(&key, value).await }
                };
                row.etcd.push(measure(row.in_flight, TIME, put).await?);
            }
            row.plain.push(measure(row.in_flight, TIME, |_| create(KeyMode::None)).await?);
            // The relay and the read models lag behind, and would take processor time from the next measurement.
            control_plane.caught_up().await?;
            row.keyed.push(measure(row.in_flight, TIME, |_| create(KeyMode::Fresh)).await?);
            control_plane.caught_up().await?;
        }
    }
    control_plane.stop().await?;
    Ok(render(&rows))
}

impl Row {
    const fn new(in_flight: u32, target: f64) -> Self {
        Self { in_flight, target, etcd: Vec::new(), plain: Vec::new(), keyed: Vec::new() }
    }
}

fn render(rows: &[Row]) -> String {
    let mut lines = vec![
        format!("durable commands/s, median of {ROUNDS} rounds by turns; etcd: compare-and-set of {VALUE} bytes"),
        format!(
            "{:<12}{:>9}{:>10}{:>8}{:>16}{:>16}{:>8}{:>15}",
            "in flight", "etcd", "otherix", "ratio", "target", "with key", "ratio", "clients busy"
        ),
    ];
    for row in rows {
        let middle = |rates: &[Rate]| median(&rates.iter().map(|rate| rate.per_second).collect::<Vec<_>>());
        let busy = |rates: &[Rate]| 100.0 * median(&rates.iter().map(|rate| rate.client).collect::<Vec<_>>());
        let (etcd, plain, keyed) = (middle(&row.etcd), middle(&row.plain), middle(&row.keyed));
        let ratio = plain / etcd;
        let target = format!(">= {:.1} ({})", row.target, target_result(ratio >= row.target));
        lines.push(format!(
            "{:<12}{etcd:>9.0}{plain:>10.0}{ratio:>8.2}{target:>16}{keyed:>16.0}{:>8.2}{:>8.0} %, {:.0} %",
            row.in_flight,
            keyed / etcd,
            busy(&row.etcd),
            busy(&row.plain),
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_medians_ratios_and_targets() {
        let rate = |per_second| Rate { per_second, client: 0.5 };
        let rates = |middle: f64| vec![rate(middle * 2.0), rate(middle / 2.0), rate(middle)];
        let row = Row { in_flight: 64, target: 1.5, etcd: rates(100.0), plain: rates(160.0), keyed: rates(140.0) };
        let text = render(&[row]);
        let last = text.lines().last().unwrap();
        assert!(last.contains("1.60") && last.contains(">= 1.5 (met)") && last.contains("1.40"), "{last}");
    }
}
