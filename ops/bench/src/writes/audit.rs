//! What an auditor waits for: an export of a control plane's events, its verification, and the replay into read models,
//! beside a plain sequential read of the same events from the journal.
//!
//! Each is a process of its own, whose peak memory is read from the kernel.

use std::cell::RefCell;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::sleep;

use super::control_plane::{ControlPlane, KeyMode};
use super::load::send;
use super::networks::fill;
use super::process::find;
use super::{managed, median, scratch};
use crate::BenchError;
use crate::report::{report_progress, target_result};

/// Networks that remain.
const NETWORKS: u32 = 10_000;

/// Commands in flight while the events are created.
const IN_FLIGHT: u32 = 1024;

/// Runs of each part.
const RUNS: usize = 5;

/// Target of the verification, as a fraction of the rate of the plain read.
const TARGET: f64 = 0.4;

/// How long the log may take to sign all events.
const SIGNED_WITHIN: Duration = Duration::from_secs(600);

/// Interval at which the memory of a process is read, and the log is asked for.
const POLL: Duration = Duration::from_millis(5);

/// Time and peak memory of one part.
#[derive(Clone, Copy, Debug)]
struct Cost {
    seconds: f64,
    /// In MB.
    memory: f64,
}

/// Creates a history of `events` events, audits it, and returns lines of figures. What the folder `keep` has is used
/// again: a journal, without the figures of exports.
pub(crate) async fn run(bin_dir: &Path, events: u32, keep: Option<&Path>) -> Result<String, BenchError> {
    let scratch = scratch()?;
    let folder = keep.unwrap_or(scratch.path());
    let path = |name: &str| folder.join(name);
    let text = |name: &str| path(name).display().to_string();
    let (export, replay, key) = (text("export"), text("replay"), path("key"));
    let auditor = Auditor {
        program: find("otherix", bin_dir).ok_or("there is no `otherix` beside the bench")?,
        state: path("otherix"),
    };
    let mut exported = Vec::new();
    if !key.exists() {
        let (control_plane, vkey) = signed_history(bin_dir, &auditor.state, events).await?;
        for round in 1..=RUNS {
            report_progress(&format!("bench: export {round} of {RUNS}"));
            if round > 1 {
                std::fs::remove_dir_all(&export)?;
            }
            exported.push(auditor.run(&["export", &export]).await?);
        }
        // The rest takes no control plane, which would still be busy with the history of its read models.
        control_plane.stop().await?;
        std::fs::write(&key, vkey)?;
    }
    let key = std::fs::read_to_string(&key)?;
    let (mut read, mut verified, mut replayed, mut count) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 1..=RUNS {
        report_progress(&format!("bench: audit {round} of {RUNS}"));
        let (seconds, events) = plain_read(&auditor.state.join("journal.db"))?;
        count = events;
        read.push(seconds);
        verified.push(auditor.run(&["verify", &export, "--key", &key]).await?);
        replayed.push(auditor.run(&["replay", &export, "--key", &key, "--into", &replay]).await?);
        std::fs::remove_dir_all(&replay)?;
    }
    let line = |name: &str, costs: &[Cost]| line(name, costs, count, &read);
    let met = target_result(median(&fractions(&verified, &read)) >= TARGET);
    let plain = rate(count, &read);
    Ok([
        format!("audit of {count} events (medians of {RUNS}); a plain read of the journal: {plain:.0} events/s"),
        line("export", &exported),
        format!("{} (target {TARGET}: {met})", line("verify", &verified)),
        line("replay", &replayed),
    ]
    .join("\n"))
}

/// Rate, part of the speed of the plain read in the same round, and memory.
fn line(name: &str, costs: &[Cost], count: u64, read: &[f64]) -> String {
    if costs.is_empty() {
        return format!("  {name:<9}not measured");
    }
    let rate = rate(count, &seconds(costs));
    let fractions = fractions(costs, read);
    let least = fractions.iter().copied().fold(f64::INFINITY, f64::min);
    let most = fractions.iter().copied().fold(0.0, f64::max);
    let memory = costs.iter().map(|cost| cost.memory).fold(0.0, f64::max);
    format!(
        "  {name:<9}{rate:>9.0} events/s  {:.2} of the plain read ({least:.2} to {most:.2})  peak {memory:.0} MB",
        median(&fractions)
    )
}

/// Parts of the speed of the plain read, round by round.
fn fractions(costs: &[Cost], read: &[f64]) -> Vec<f64> {
    costs.iter().zip(read).map(|(cost, read)| read / cost.seconds).collect()
}

/// The program that is measured.
struct Auditor {
    program: PathBuf,
    state: PathBuf,
}

impl Auditor {
    async fn run(&self, arguments: &[&str]) -> Result<Cost, BenchError> {
        let mut command = Command::new(&self.program);
        command.arg("audit").args(arguments).env("OTHERIX_STATE", &self.state).env("HOME", &self.state);
        for name in ["OTHERIX_NATS_URL", "OTHERIX_CREDENTIALS", "OTHERIX_CONTEXT", "OTHERIX_OFFLINE"] {
            command.env_remove(name);
        }
        measured(command).await
    }
}

/// Creates a history of which all events are signed, and returns the key as well.
async fn signed_history(bin_dir: &Path, state: &Path, events: u32) -> Result<(ControlPlane, String), BenchError> {
    let networks = NETWORKS.min(events / 2);
    report_progress(&format!("bench: creating a journal of {events} events with {networks} networks"));
    let (control_plane, _) = ControlPlane::start(bin_dir, state).await?;
    create(&control_plane, events, networks).await?;
    report_progress("bench: waiting for a checkpoint of all events");
    let begin = Instant::now();
    loop {
        let view: Value = serde_json::from_slice(&control_plane.request("log.get", "{}", KeyMode::None).await?)?;
        let covered = view.pointer("/data/position").and_then(Value::as_u64).unwrap_or_default();
        if covered >= u64::from(events) {
            let key = view.pointer("/data/key").and_then(Value::as_str).unwrap_or_default().to_owned();
            return Ok((control_plane, key));
        }
        if begin.elapsed() > SIGNED_WITHIN {
            return Err(format!("the log covers {covered} events").into());
        }
        sleep(POLL).await;
    }
}

/// Networks that remain, and others that are created and deleted again.
async fn create(control_plane: &ControlPlane, events: u32, networks: u32) -> Result<(), BenchError> {
    fill(control_plane, 0..networks, managed).await?;
    let created = RefCell::new(Vec::<String>::new());
    let command = |number: u32| {
        let created = &created;
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
    control_plane.caught_up().await
}

/// Reads all events from the journal in their order, and nothing else. Returns the seconds that it took, and how many
/// there are.
fn plain_read(journal: &Path) -> Result<(f64, u64), BenchError> {
    let db = Connection::open_with_flags(journal, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let begin = Instant::now();
    let mut statement = db.prepare("SELECT body FROM events ORDER BY position")?;
    let mut rows = statement.query([])?;
    let (mut count, mut bytes) = (0_u64, 0_usize);
    while let Some(row) = rows.next()? {
        bytes += black_box(row.get_ref(0)?.as_bytes()?).len();
        count += 1;
    }
    black_box(bytes);
    Ok((begin.elapsed().as_secs_f64(), count))
}

/// Runs a program to its end.
async fn measured(mut command: Command) -> Result<Cost, BenchError> {
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let status = format!("/proc/{}/status", child.id().ok_or("a program ended at once")?);
    let mut memory: f64 = 0.0;
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended?,
            () = sleep(POLL) => memory = memory.max(peak(&status)),
        }
    };
    let seconds = begin.elapsed().as_secs_f64();
    if !ended.success() {
        let errors = child.wait_with_output().await?.stderr;
        return Err(format!("a program failed: {}", String::from_utf8_lossy(&errors)).into());
    }
    Ok(Cost { seconds, memory })
}

/// The peak memory of a process so far, in MB; 0 if it has ended.
fn peak(status: &str) -> f64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<f64>().ok());
    kib.unwrap_or_default() * 1024.0 / 1e6
}

fn seconds(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.seconds).collect()
}

/// Events per second, by the median of some times.
fn rate(events: u64, seconds: &[f64]) -> f64 {
    events as f64 / median(seconds)
}
