//! What checkpoints cost: commands per second of a control plane that signs one a second, as always, and of one that
//! signs one an hour, measured by turns: by the clock, and by the processor time that a command takes until all that
//! follows from it is done. Both have read models, history and stream; neither has nodes.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use super::control_plane::{ControlPlane, KeyMode};
use super::load::measure;
use super::{managed, median, scratch};
use crate::BenchError;
use crate::report::{report_progress, target_result};

/// Pairs of measurements, and commands in flight in each.
const PAIRS: u32 = 20;
const IN_FLIGHT: u32 = 64;

/// How long one takes, after a warm-up of half a second.
const TIME: Duration = Duration::from_secs(3);

/// Target: the fraction of the rate that checkpoints may cost.
const TARGET: f64 = 0.03;

/// An interval in which there is no checkpoint while the bench runs, nor is the journal read for one.
const NONE: [&str; 2] = ["--checkpoint-interval-ms", "3600000"];

/// How long the first checkpoint, and what follows the journal, may take.
const WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// Measures, and returns lines of figures.
pub(crate) async fn run(bin_dir: &Path) -> Result<String, BenchError> {
    let folder = scratch()?;
    let (with, _) = ControlPlane::start(bin_dir, &folder.path().join("with")).await?;
    let (without, _) = ControlPlane::start_with(bin_dir, &folder.path().join("without"), &NONE).await?;
    until(&with, "log.get", |view| view.pointer("/data/checkpoint").is_some_and(Value::is_string)).await?;
    let number = Cell::new(0);
    let (mut costs, mut rates) = (Vec::new(), [Vec::new(), Vec::new()]);
    let (mut processor_costs, mut processor) = (Vec::new(), [Vec::new(), Vec::new()]);
    for pair in 1..=PAIRS {
        report_progress(&format!("bench: with and without checkpoints, {pair} of {PAIRS}"));
        let mut order = [(0, &with), (1, &without)];
        // Whoever is second may find another machine.
        if pair % 2 == 0 {
            order.reverse();
        }
        for (which, control_plane) in order {
            let create = |_| {
                let body = managed(number.replace(number.get() + 1));
                async move { control_plane.create(body, KeyMode::None).await.map(drop) }
            };
            let (before, first) = (control_plane.processor_time()?, number.get());
            let rate = measure(IN_FLIGHT, TIME, create).await?.per_second;
            rates.get_mut(which).ok_or("there are two")?.push(rate);
            // What follows the journal would take processor time from the next measurement.
            until(control_plane, "projection.status", has_caught_up).await?;
            let spent = (control_plane.processor_time()? - before) / f64::from(number.get() - first);
            processor.get_mut(which).ok_or("there are two")?.push(spent);
        }
        if let [Some(with), Some(without)] = rates.each_ref().map(|rates| rates.last()) {
            costs.push(1.0 - with / without);
        }
        if let [Some(with), Some(without)] = processor.each_ref().map(|times| times.last()) {
            processor_costs.push(with / without - 1.0);
        }
    }
    let signed = with.request("log.get", "{}", KeyMode::None).await?;
    let signed: Value = serde_json::from_slice(&signed)?;
    let covered = signed.pointer("/data/position").and_then(Value::as_u64).unwrap_or_default();
    with.stop().await?;
    without.stop().await?;
    let (cost, [with, without]) = (median(&costs), rates.map(|rates| median(&rates)));
    let [with_processor, without_processor] = processor.map(|times| median(&times) * 1e6);
    let met = target_result(cost <= TARGET);
    Ok(format!(
        "commands/s at {IN_FLIGHT} in flight: {with:.0} with checkpoints, {without:.0} without (medians of {PAIRS})\n  \
         a checkpoint a second costs {:.1} % (median of pairs; quartiles {}; target {:.0} %: {met}); {covered} events \
         are covered\n  processor time of a command, µs: {with_processor:.0} with, {without_processor:.0} without; \
         {:.1} % more (median of pairs; quartiles {})",
        cost * 100.0,
        quartiles(costs),
        TARGET * 100.0,
        median(&processor_costs) * 100.0,
        quartiles(processor_costs),
    ))
}

/// The quartiles of fractions, as percentages.
fn quartiles(mut fractions: Vec<f64>) -> String {
    fractions.sort_by(f64::total_cmp);
    let quartile = |quarter: usize| fractions.get(fractions.len() * quarter / 4).copied().unwrap_or_default() * 100.0;
    format!("{:.1} and {:.1}", quartile(1), quartile(3))
}

/// Whether all read models have applied all events.
fn has_caught_up(view: &Value) -> bool {
    let models = view.pointer("/data/projections").and_then(Value::as_array);
    models.is_some_and(|models| models.iter().all(|model| model.get("lag").and_then(Value::as_u64) == Some(0)))
}

/// Asks until the answer is as wanted.
async fn until(control_plane: &ControlPlane, request: &str, wanted: fn(&Value) -> bool) -> Result<(), BenchError> {
    let begin = Instant::now();
    while !wanted(&serde_json::from_slice(&control_plane.request(request, "{}", KeyMode::None).await?)?) {
        if begin.elapsed() > WITHIN {
            return Err(format!("`{request}` is not as it should be").into());
        }
        sleep(POLL).await;
    }
    Ok(())
}
