//! A random sequence of steps in a cluster; after each, every machine has exactly what the events imply, and nothing
//! that is to stay has been recreated.
//!
//! `OTHERIX_SEQUENCE_SEED` repeats a sequence, as far as the nodes' timing allows; `OTHERIX_SEQUENCE_STEPS` sets its
//! length.

mod feed;
mod model;
mod seen;
mod steps;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use otherix_testkit::wait::wait_for_blocking;

use self::feed::Feed;
use self::model::Facts;
use self::seen::Seen;
use self::steps::{Random, Step};
use crate::lab::Lab;

const NODES: u32 = 3;
const STEPS: usize = 40;

/// Within which every node has what a step implies.
const CONVERGED_WITHIN: Duration = Duration::from_secs(10);

/// What took longer is shown.
const SLOW: Duration = Duration::from_secs(1);

/// Of so many steps, one is followed by the next at once, before anybody looked.
const HASTE: usize = 4;

/// How much of an agent's log is shown on failure.
const LAST_LINES: usize = 60;

/// A machine is not as it must be.
#[derive(Clone)]
struct Difference {
    machine: String,
    missing: Facts,
    odd: Facts,
}

impl fmt::Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:", self.machine)?;
        self.missing.iter().try_for_each(|fact| writeln!(f, "  missing: {fact}"))?;
        self.odd.iter().try_for_each(|fact| writeln!(f, "  not to be: {fact}"))
    }
}

/// The sequence so far.
struct Run<'a> {
    lab: &'a Lab,
    feed: Feed,
    seed: u64,
    /// The devices of each node, after the last look. A machine that joins again is another node.
    devices: BTreeMap<String, BTreeMap<String, u64>>,
    /// The most facts that were so at one time.
    most: usize,
}

impl Run<'_> {
    /// Waits until every machine is as the events say.
    fn look(&mut self, after: &str) -> Duration {
        let began = Instant::now();
        let what = format!("every node to have what the events imply (seed {}) after: {after}\n", self.seed);
        let machines: Vec<String> = self.feed.cluster_of_now(self.lab).machines().iter().cloned().collect();
        let mut waited_for = Vec::new();
        let seen = wait_for_blocking(CONVERGED_WITHIN, &what, || {
            self.compare(&machines).inspect_err(|differences| waited_for.clone_from(differences))
        });
        let took = began.elapsed();
        if took > SLOW {
            println!("{} ms, at last for {waited_for:?}", took.as_millis());
        }
        self.most = self.most.max(seen.values().map(|seen| seen.facts.len()).sum());
        let cluster = self.feed.cluster();
        let members = seen.into_iter().filter_map(|(machine, seen)| Some((cluster.member(&machine)?, machine, seen)));
        for (node, machine, Seen { facts: _, devices }) in members {
            let before = self.devices.insert(node.to_owned(), devices.clone()).unwrap_or_default();
            for (device, index) in devices {
                let same = before.get(&device).is_none_or(|before| *before == index);
                assert!(same, "{machine}: `{device}` was made anew (seed {}) after: {after}", self.seed);
            }
        }
        took
    }

    fn compare(&mut self, machines: &[String]) -> Result<BTreeMap<String, Seen>, Vec<Difference>> {
        let seen: BTreeMap<_, _> =
            machines.iter().map(|machine| (machine.clone(), seen::look(self.lab, machine))).collect();
        let cluster = self.feed.cluster();
        let difference = |(machine, Seen { facts, devices: _ }): (&String, &Seen)| {
            let machine = machine.clone();
            match cluster.facts(&machine) {
                Ok(expected) => {
                    let missing = expected.difference(facts).cloned().collect();
                    let odd = facts.difference(&expected).cloned().collect();
                    (expected != *facts).then_some(Difference { machine, missing, odd })
                }
                Err(why) => Some(Difference { machine, missing: [why].into(), odd: Facts::new() }),
            }
        };
        let differences: Vec<_> = seen.iter().filter_map(difference).collect();
        if differences.is_empty() { Ok(seen) } else { Err(differences) }
    }
}

/// Shows what the agents said last, if the test fails.
struct LastWords<'a>(&'a Lab);

impl Drop for LastWords<'_> {
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

/// A seed that is another each time.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos()) ^ now.as_secs()
}

#[test]
fn lab_cluster_matches_events_after_random_steps() {
    let seed = setting("OTHERIX_SEQUENCE_SEED").unwrap_or_else(any_seed);
    let count: usize = setting("OTHERIX_SEQUENCE_STEPS").unwrap_or(STEPS);
    println!("seed {seed}: OTHERIX_SEQUENCE_SEED={seed} OTHERIX_SEQUENCE_STEPS={count} repeats this");
    let (began, mut random) = (Instant::now(), Random::new(seed));
    let lab = Lab::up("sequence", NODES);
    let _last_words = LastWords(&lab);
    let mut run = Run { lab: &lab, feed: Feed::of(&lab), seed, devices: BTreeMap::new(), most: 0 };
    run.look("the beginning");
    let mut took = Vec::new();
    for number in 1..=count {
        let cluster = run.feed.cluster_of_now(&lab);
        let chosen = match number {
            // However the dice fall, a node joins and one leaves.
            _ if number == count / 3 => Step::join(&mut random, cluster),
            _ if number == 2 * count / 3 => Step::leave(&mut random, cluster),
            _ => None,
        };
        let step = chosen.unwrap_or_else(|| Step::next(&mut random, cluster, number));
        step.take(&lab);
        if random.below(HASTE) == 0 && number < count {
            println!("{number}: {step}, and at once");
            continue;
        }
        took.push(run.look(&format!("{number}: {step}")));
        println!("{number}: {step}: so on every node {} ms later", took.last().unwrap().as_millis());
    }
    lab.assert_stream_is_journal();
    took.sort();
    println!(
        "seed {seed}: {count} steps in {} s, up to {} facts; from answer to convergence: median {} ms, longest {} ms",
        began.elapsed().as_secs(),
        run.most,
        took[took.len() / 2].as_millis(),
        took[took.len() - 1].as_millis()
    );
}
