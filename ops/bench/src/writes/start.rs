//! The time from the start of a control plane with a long history until it serves.

use std::cell::RefCell;
use std::path::Path;

use super::control_plane::{ControlPlane, KeyMode, StartTimes};
use super::load::send;
use super::networks::fill;
use super::{managed, median, scratch};
use crate::BenchError;
use crate::report::{report_progress, target_result};

/// Networks that remain.
const NETWORKS: u32 = 100_000;

/// Commands in flight while the history is created.
const IN_FLIGHT: u32 = 1024;

/// Starts that are measured.
const STARTS: u32 = 3;

/// Target, in seconds, until commands and queries are answered.
const TARGET: f64 = 2.0;

/// Creates a history of `events` events (each command has one), measures starts with it, and returns a line of figures.
pub(crate) async fn run(bin_dir: &Path, events: u32) -> Result<String, BenchError> {
    let folder = scratch()?;
    let state = folder.path().join("otherix");
    let networks = NETWORKS.min(events / 2);
    report_progress(&format!("bench: creating a journal of {events} events with {networks} networks"));
    let (control_plane, _) = ControlPlane::start(bin_dir, &state).await?;
    fill(&control_plane, 0..networks, managed).await?;
    // The remaining commands create a network (even numbers) and delete it again (odd numbers).
    let created = RefCell::new(Vec::<String>::new());
    let command = |number: u32| {
        let (created, control_plane) = (&created, &control_plane);
        async move {
            let last = if number % 2 == 1 { created.borrow_mut().pop() } else { None };
            match last {
                Some(id) => control_plane.delete(&id).await?,
                None => {
                    let id = control_plane.create(managed(networks + number), KeyMode::None).await?;
                    created.borrow_mut().push(id);
                }
            }
            Ok(())
        }
    };
    send(events - networks, IN_FLIGHT, command).await?;
    control_plane.caught_up().await?;
    let mut starts = Vec::new();
    let mut control_plane = control_plane;
    for start in 1..=STARTS {
        control_plane.stop().await?;
        report_progress(&format!("bench: start {start} of {STARTS} with {events} events"));
        let (started, serving) = ControlPlane::start(bin_dir, &state).await?;
        starts.push(serving);
        control_plane = started;
    }
    control_plane.stop().await?;
    Ok(render(events, &starts))
}

fn render(events: u32, starts: &[StartTimes]) -> String {
    let middle = |part: fn(&StartTimes) -> f64| median(&starts.iter().map(part).collect::<Vec<_>>());
    let commands = middle(|serving| serving.commands.as_secs_f64());
    let queries = middle(|serving| serving.queries.as_secs_f64());
    format!(
        "start with {events} events: commands are answered after {commands:.2} s, queries after {queries:.2} s \
         (target at most {TARGET:.0} s: {})",
        target_result(commands.max(queries) <= TARGET),
    )
}
