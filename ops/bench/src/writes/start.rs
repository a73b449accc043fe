//! How long a control plane with a long history takes from its start until it serves.

use std::cell::RefCell;
use std::path::Path;

use super::load::send;
use super::networks::fill;
use super::plane::{Key, Plane, Serving};
use super::{managed, median, scratch, verdict};
use crate::Failure;
use crate::report::say;

/// Networks that remain, and events in all: each command has one.
const NETWORKS: u32 = 100_000;

/// Commands in flight while the history is made.
const IN_FLIGHT: u32 = 1024;

/// Starts that are measured.
const STARTS: u32 = 3;

/// Target, in seconds, until commands and queries are answered.
const TARGET: f64 = 2.0;

/// Makes a history of `events` events, measures starts with it, and returns a line of figures.
pub(crate) async fn run(bin_dir: &Path, events: u32) -> Result<String, Failure> {
    let folder = scratch()?;
    let state = folder.path().join("otherix");
    let networks = NETWORKS.min(events / 2);
    say(&format!("bench: making a journal of {events} events with {networks} networks"));
    let (plane, _) = Plane::start(bin_dir, &state).await?;
    fill(&plane, 0..networks, managed).await?;
    // The rest creates networks and deletes each again: the odd command of each pair.
    let created = RefCell::new(Vec::<String>::new());
    let command = |number: u32| {
        let (created, plane) = (&created, &plane);
        async move {
            let last = if number % 2 == 1 { created.borrow_mut().pop() } else { None };
            match last {
                Some(id) => plane.delete(&id).await?,
                None => {
                    let id = plane.create(managed(networks + number), Key::None).await?;
                    created.borrow_mut().push(id);
                }
            }
            Ok(())
        }
    };
    send(events - networks, IN_FLIGHT, command).await?;
    plane.caught_up().await?;
    let mut starts = Vec::new();
    let mut plane = plane;
    for start in 1..=STARTS {
        plane.stop().await?;
        say(&format!("bench: start {start} of {STARTS} with {events} events"));
        let (started, serving) = Plane::start(bin_dir, &state).await?;
        starts.push(serving);
        plane = started;
    }
    plane.stop().await?;
    Ok(render(events, &starts))
}

fn render(events: u32, starts: &[Serving]) -> String {
    let middle = |part: fn(&Serving) -> f64| median(&starts.iter().map(part).collect::<Vec<_>>());
    let commands = middle(|serving| serving.commands.as_secs_f64());
    let queries = middle(|serving| serving.queries.as_secs_f64());
    format!(
        "start with {events} events: commands are answered after {commands:.2} s, queries after {queries:.2} s \
         (target at most {TARGET:.0} s: {})",
        verdict(commands.max(queries) <= TARGET),
    )
}
