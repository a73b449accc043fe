//! A random sequence of steps in a cluster. After each step every machine has exactly the state that the events imply,
//! and no device that must stay was recreated.
//!
//! `OTHERIX_SEQUENCE_SEED` repeats a sequence, apart from the nodes' timing; `OTHERIX_SEQUENCE_STEPS` sets its length.

mod feed;
mod model;
mod observed;
mod steps;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use otherix_testkit::wait::wait_for_blocking;

use self::feed::StreamFollower;
use self::model::Facts;
use self::observed::ObservedState;
use self::steps::{RandomGenerator, Step};
use crate::lab::Lab;

const NODES: u32 = 3;
const STEPS: usize = 40;

/// Time-out for every node to have the state that a step implies.
const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// Above this duration the last differences are printed.
const SLOW: Duration = Duration::from_secs(1);

/// One in this number of steps, on average, is followed by the next without a check.
const SKIP_CHECK_ONE_IN: usize = 4;

/// Number of log lines of each process printed on failure.
const LAST_LINES: usize = 60;

/// How the state of a machine differs from the expected one.
#[derive(Clone)]
struct Difference {
    machine: String,
    missing: Facts,
    unexpected: Facts,
}

impl fmt::Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:", self.machine)?;
        self.missing.iter().try_for_each(|fact| writeln!(f, "  missing: {fact}"))?;
        self.unexpected.iter().try_for_each(|fact| writeln!(f, "  unexpected: {fact}"))
    }
}

/// The sequence so far.
struct SequenceRun<'a> {
    lab: &'a Lab,
    feed: StreamFollower,
    seed: u64,
    /// The devices of each node at the last check, by node id: a machine that joins again is another node.
    devices: BTreeMap<String, BTreeMap<String, u64>>,
    /// The largest number of facts observed at one time.
    most_facts: usize,
}

impl SequenceRun<'_> {
    /// Waits until every machine has the state that the events imply, and returns how long that took.
    fn wait_for_convergence(&mut self, after: &str) -> Duration {
        let start = Instant::now();
        let what = format!("every node to have the state that the events imply (seed {}) after: {after}\n", self.seed);
        let machines: Vec<String> = self.feed.current_cluster(self.lab).machines().iter().cloned().collect();
        let mut last_differences = Vec::new();
        let observed = wait_for_blocking(CONVERGENCE_TIMEOUT, &what, || {
            self.compare(&machines).inspect_err(|differences| last_differences.clone_from(differences))
        });
        let duration = start.elapsed();
        if duration > SLOW {
            println!("{} ms, the last differences: {last_differences:?}", duration.as_millis());
        }
        self.most_facts = self.most_facts.max(observed.values().map(|observed| observed.facts.len()).sum());
        let cluster = self.feed.cluster();
        let members =
            observed.into_iter().filter_map(|(machine, observed)| Some((cluster.member(&machine)?, machine, observed)));
        for (node, machine, ObservedState { facts: _, devices }) in members {
            let before = self.devices.insert(node.to_owned(), devices.clone()).unwrap_or_default();
            for (device, index) in devices {
                let same = before.get(&device).is_none_or(|before| *before == index);
                assert!(same, "{machine}: `{device}` was recreated (seed {}) after: {after}", self.seed);
            }
        }
        duration
    }

    fn compare(&mut self, machines: &[String]) -> Result<BTreeMap<String, ObservedState>, Vec<Difference>> {
        let observed: BTreeMap<_, _> =
            machines.iter().map(|machine| (machine.clone(), observed::observe(self.lab, machine))).collect();
        let cluster = self.feed.cluster();
        let difference = |(machine, ObservedState { facts, devices: _ }): (&String, &ObservedState)| {
            let machine = machine.clone();
            match cluster.facts(&machine) {
                Ok(expected) => {
                    let missing = expected.difference(facts).cloned().collect();
                    let unexpected = facts.difference(&expected).cloned().collect();
                    (expected != *facts).then_some(Difference { machine, missing, unexpected })
                }
                Err(why) => Some(Difference { machine, missing: [why].into(), unexpected: Facts::new() }),
            }
        };
        let differences: Vec<_> = observed.iter().filter_map(difference).collect();
        if differences.is_empty() { Ok(observed) } else { Err(differences) }
    }
}

/// Prints the end of all logs if the test fails.
struct LogsOnFailure<'a>(&'a Lab);

impl Drop for LogsOnFailure<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in fs::read_dir(self.0.folder().join("logs")).into_iter().flatten().flatten() {
            let log = fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            println!("{}:\n{}\n", entry.path().display(), lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"));
        }
    }
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().ok().unwrap_or_else(|| panic!("{name} must be a number")))
}

/// A different seed each time.
fn random_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos()) ^ now.as_secs()
}

#[test]
fn lab_cluster_matches_events_after_random_steps() {
    let seed = setting("OTHERIX_SEQUENCE_SEED").unwrap_or_else(random_seed);
    let count: usize = setting("OTHERIX_SEQUENCE_STEPS").unwrap_or(STEPS);
    println!("seed {seed}: OTHERIX_SEQUENCE_SEED={seed} OTHERIX_SEQUENCE_STEPS={count} repeats this");
    let (start, mut random) = (Instant::now(), RandomGenerator::new(seed));
    let lab = Lab::up("sequence", NODES);
    let _logs_on_failure = LogsOnFailure(&lab);
    let mut run =
        SequenceRun { lab: &lab, feed: StreamFollower::start(&lab), seed, devices: BTreeMap::new(), most_facts: 0 };
    run.wait_for_convergence("the beginning");
    let mut durations = Vec::new();
    for number in 1..=count {
        let cluster = run.feed.current_cluster(&lab);
        let chosen = match number {
            // In every sequence a node joins and one is removed.
            _ if number == count / 3 => Step::add_node(&mut random, cluster),
            _ if number == 2 * count / 3 => Step::remove_node(&mut random, cluster),
            _ => None,
        };
        let step = chosen.unwrap_or_else(|| Step::next(&mut random, cluster, number));
        step.execute(&lab);
        if random.below(SKIP_CHECK_ONE_IN) == 0 && number < count {
            println!("{number}: {step}, not checked");
            continue;
        }
        durations.push(run.wait_for_convergence(&format!("{number}: {step}")));
        println!("{number}: {step}: converged after {} ms", durations.last().unwrap().as_millis());
    }
    lab.assert_stream_is_journal();
    durations.sort();
    println!(
        "seed {seed}: {count} steps in {} s, up to {} facts; from response to convergence: median {} ms, longest {} ms",
        start.elapsed().as_secs(),
        run.most_facts,
        durations[durations.len() / 2].as_millis(),
        durations[durations.len() - 1].as_millis()
    );
}
