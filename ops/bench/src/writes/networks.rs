//! Commands per second while the cluster has few, some and many networks: the cost of a decision must not depend on
//! their number. Each worker creates a network and deletes it again, so that the number stays the same.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::control_plane::{ControlPlane, KeyMode};
use super::load::{measure, send};
use super::{managed, median, scratch};
use crate::BenchError;
use crate::report::{report_progress, target_result};

/// Networks at the time of a measurement.
const LEVELS: [u32; 3] = [10, 1000, 100_000];

/// Workers; each adds at most one network at a time.
const IN_FLIGHT: u32 = 64;

/// Commands in flight while permanent networks are created.
const FILLING: u32 = 1024;

/// Time-out for creating the networks of a level; a level that is not reached in time counts as missed.
const FILL_WITHIN: Duration = Duration::from_secs(60);

/// Measurements at each level, and how long one takes.
const ROUNDS: u32 = 3;
const TIME: Duration = Duration::from_millis(1500);

/// The rate with the most networks may be lower than that with the fewest by this fraction.
const TARGET: f64 = 0.2;

/// A type of network, and the request that creates one under a name that a number makes unique.
type NetworkType = (&'static str, fn(u32) -> String);

const NETWORK_TYPES: [NetworkType; 3] =
    [("managed bridges", managed), ("one shared unmanaged bridge", shared), ("managed bridges with NAT", nat)];

fn shared(number: u32) -> String {
    format!(r#"{{"name":"net-{number}","bridge_name":"br-shared"}}"#)
}

/// Each has its own /30 in 10.64.0.0/10.
fn nat(number: u32) -> String {
    let subnet = Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 0).to_bits() + 4 * number);
    format!(
        r#"{{"name":"net-{number}","bridge_name":"br{number}","managed":true,"egress":"nat","subnet":"{subnet}/30"}}"#
    )
}

/// Measures, and returns a table.
pub(crate) async fn run(bin_dir: &Path) -> Result<String, BenchError> {
    let mut lines = vec![
        format!("commands/s (create and delete) at {IN_FLIGHT} in flight, by number of networks"),
        format!("{:<32}{:>9}{:>9}{:>9}{:>22}", "", LEVELS[0], LEVELS[1], LEVELS[2], "last to first"),
    ];
    for (title, body) in NETWORK_TYPES {
        let rates = kind(bin_dir, title, body).await?;
        let ratio = rates[2].zip(rates[0]).map(|(last, first)| last / first);
        let met = target_result(ratio.is_some_and(|ratio| ratio >= 1.0 - TARGET));
        let target = format!("{}, >= {:.1} ({met})", figure(ratio, 2), 1.0 - TARGET);
        let [few, some, many] = rates.map(|rate| figure(rate, 0));
        lines.push(format!("{title:<32}{few:>9}{some:>9}{many:>9}{target:>22}"));
    }
    Ok(lines.join("\n"))
}

/// A figure, or a dash for one that was not measured.
fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

/// The rates at each level that is reached in time.
async fn kind(bin_dir: &Path, title: &str, body: fn(u32) -> String) -> Result<[Option<f64>; 3], BenchError> {
    let folder = scratch()?;
    let (control_plane, _) = ControlPlane::start(bin_dir, &folder.path().join("otherix")).await?;
    let mut rates = [None; 3];
    let mut networks = 0;
    for (rate, level) in rates.iter_mut().zip(LEVELS) {
        report_progress(&format!("bench: {title}, {level} networks"));
        match tokio::time::timeout(FILL_WITHIN, fill(&control_plane, networks..level, body)).await {
            Ok(filled) => filled?,
            Err(_) => {
                report_progress(&format!(
                    "bench: {level} networks were not created within {} s",
                    FILL_WITHIN.as_secs()
                ));
                break;
            }
        }
        networks = level;
        let mut measured = Vec::new();
        for _ in 0..ROUNDS {
            control_plane.caught_up().await?;
            measured.push(churn(&control_plane, level, body).await?);
        }
        *rate = Some(median(&measured));
    }
    control_plane.stop().await?;
    Ok(rates)
}

/// Creates the networks of these numbers.
pub(super) async fn fill(
    control_plane: &ControlPlane,
    numbers: std::ops::Range<u32>,
    body: fn(u32) -> String,
) -> Result<(), BenchError> {
    let first = numbers.start;
    let create = |number| async move { control_plane.create(body(first + number), KeyMode::None).await.map(drop) };
    send(numbers.end - first, FILLING, create).await
}

/// Creates and deletes networks, one per slot, and returns the commands per second.
async fn churn(control_plane: &ControlPlane, level: u32, body: fn(u32) -> String) -> Result<f64, BenchError> {
    let created: Vec<Cell<Option<String>>> = (0..IN_FLIGHT).map(|_| Cell::new(None)).collect();
    let command = |slot: u32| {
        let created = &created;
        async move {
            let own = created.get(usize::try_from(slot)?).ok_or("there is no such slot")?;
            match own.take() {
                None => own.set(Some(control_plane.create(body(level + slot), KeyMode::None).await?)),
                Some(id) => control_plane.delete(&id).await?,
            }
            Ok(())
        }
    };
    let rate = measure(IN_FLIGHT, TIME, command).await?;
    for id in created.iter().filter_map(Cell::take) {
        control_plane.delete(&id).await?;
    }
    Ok(rate.per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_disjoint() {
        assert!(nat(0).contains(r#""10.64.0.0/30""#) && nat(1).contains(r#""10.64.0.4/30""#));
        assert!(nat(100_063).contains(r#""10.70.27.124/30""#), "{}", nat(100_063));
    }
}
