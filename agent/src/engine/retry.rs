//! The retry policy: when a failed step is tried again, and how often a device is repaired that another program keeps
//! changing. Reads no clock: the time is an argument.
//!
//! A step that the kernel refuses is tried again after a delay that doubles from [`RETRY_MIN`] to [`RETRY_MAX`], for
//! ever; without jitter, because no other node is involved. A subject is repaired at once [`REPAIRS`] times, then every
//! [`HOLD_OFF`], until it was not repaired for [`QUIET`]; it has failed until it was not repaired for [`CONTESTED`], as
//! it does not work meanwhile. Notifications trigger [`BURST`] passes at once, then one per
//! [`INTERVAL`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::step::Step;
use super::subject::{Failures, Subject};

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);

const REPAIRS: u32 = 10;
const HOLD_OFF: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_secs(10);

/// The error of a subject whose repairs are held off.
pub(super) const UNDONE: &str = "another program changes it again and again, and it is repaired at most twice a \
    second: find and stop that program, for example with `ip monitor` and `nft monitor`";

/// The time after a repair in which another program may still be changing a subject that was repaired many times.
const CONTESTED: Duration = Duration::from_millis(1500);

const BURST: u32 = 50;
const INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct RefusedStep {
    error: String,
    delay: Duration,
    until: Instant,
}

#[derive(Debug)]
struct RepairCount {
    count: u32,
    last: Instant,
    /// The time between the last two repairs.
    gap: Duration,
}

impl RepairCount {
    /// Returns until when another program may be changing the subject again.
    fn contested_until(&self) -> Option<Instant> {
        (self.count > REPAIRS && self.gap < CONTESTED).then(|| self.last + CONTESTED)
    }
}

/// The refusals and repairs of each subject.
#[derive(Debug, Default)]
pub struct RetryPolicy {
    refusals: BTreeMap<Subject, RefusedStep>,
    repairs: BTreeMap<Subject, RepairCount>,
}

impl RetryPolicy {
    /// Records that the kernel refused a step.
    pub fn failed(&mut self, step: &Step, error: String, now: Instant) {
        let subject = step.subject();
        let previous = self.refusals.get(&subject).map(|refusal| refusal.delay);
        let delay = previous.map_or(RETRY_MIN, |delay| (delay * 2).min(RETRY_MAX));
        self.refusals.insert(subject, RefusedStep { error, delay, until: now + delay });
    }

    /// Records that a step was executed.
    pub fn succeeded(&mut self, step: &Step, now: Instant) {
        let subject = step.subject();
        self.refusals.remove(&subject);
        if !step.is_limited() {
            return;
        }
        let repairs = self.repairs.entry(subject).or_insert(RepairCount { count: 0, last: now, gap: Duration::ZERO });
        repairs.count += 1;
        repairs.gap = now.duration_since(repairs.last);
        repairs.last = now;
    }

    /// Forgets what is known of a subject about which something else was decided: its repairs were not undone.
    pub fn decided(&mut self, subject: Subject) {
        self.refusals.remove(&subject);
        self.repairs.remove(&subject);
    }

    /// Ends the delay of a subject whose failure the observed state explains: the kernel notifies when that changes.
    pub fn clear(&mut self, subject: Subject) {
        self.refusals.remove(&subject);
    }

    /// Returns the subjects that are not to be tried now. Forgets refusals whose delay is over, unless `steps` has a
    /// step for the same subject, and repairs that were not undone.
    pub fn failures(&mut self, steps: &[Step], now: Instant) -> Failures {
        self.repairs.retain(|_, repairs| now < repairs.last + QUIET);
        if self.refusals.values().any(|refusal| refusal.until <= now) {
            let subjects: BTreeSet<_> = steps.iter().map(Step::subject).collect();
            self.refusals.retain(|subject, refusal| now < refusal.until || subjects.contains(subject));
        }
        let mut failures = Failures::default();
        for (subject, _) in self.held_off(now) {
            failures.insert(subject, UNDONE.to_owned());
        }
        for (subject, refusal) in self.refusals.iter().filter(|(_, refusal)| now < refusal.until) {
            failures.insert(*subject, refusal.error.clone());
        }
        failures
    }

    /// Returns when the next delay ends.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let refusals = self.refusals.values().map(|refusal| refusal.until).filter(|until| now < *until);
        let contested = self.contested_until(now).map(|(_, until)| until);
        refusals.chain(self.held_off(now).map(|(_, until)| until)).chain(contested).min()
    }

    /// Returns the subjects that another program keeps changing.
    pub fn contested(&self, now: Instant) -> impl Iterator<Item = Subject> {
        self.contested_until(now).map(|(subject, _)| subject)
    }

    fn contested_until(&self, now: Instant) -> impl Iterator<Item = (Subject, Instant)> {
        let until = self.repairs.iter().filter_map(|(subject, repairs)| Some((*subject, repairs.contested_until()?)));
        until.filter(move |(_, until)| now < *until)
    }

    fn held_off(&self, now: Instant) -> impl Iterator<Item = (Subject, Instant)> {
        let many = self.repairs.iter().filter(|(_, repairs)| repairs.count > REPAIRS);
        many.map(|(subject, repairs)| (*subject, repairs.last + HOLD_OFF)).filter(move |(_, until)| now < *until)
    }
}

/// Limits the rate of passes that notifications trigger.
#[derive(Debug)]
pub struct TokenBucket {
    /// When the next pass would be due at one pass per interval.
    due: Instant,
}

impl TokenBucket {
    pub fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// Returns the time from which a token is available; `None` means at once.
    pub fn available_at(&self) -> Option<Instant> {
        self.due.checked_sub(INTERVAL * BURST)
    }

    /// Takes a token.
    pub fn take(&mut self, now: Instant) {
        self.due = self.due.max(now) + INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use otherix_schemas::id::{ClusterId, NetworkId};
    use serde::Serialize;
    use uuid::Uuid;

    use super::*;
    use crate::engine::StepAction;
    use crate::kernel::{Kernel, KernelError};

    #[derive(Debug, Serialize)]
    struct Repair;

    impl fmt::Display for Repair {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("repair")
        }
    }

    impl StepAction for Repair {
        fn kind(&self) -> &'static str {
            "test"
        }

        fn name(&self) -> &'static str {
            "repair"
        }

        fn subject(&self) -> Subject {
            network()
        }

        fn execute(actions: &[&Self], _: &mut Kernel, _: ClusterId) -> Vec<Result<(), KernelError>> {
            actions.iter().map(|_| Ok(())).collect()
        }
    }

    fn repair() -> Step {
        Step::new(Repair)
    }

    fn network() -> Subject {
        Subject::Network(NetworkId::new(Uuid::nil()))
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        let mut policy = RetryPolicy::default();
        let mut now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..6 {
            policy.failed(&repair(), "no".to_owned(), now);
            let due = policy.due(now).unwrap();
            delays.push((due - now).as_millis());
            let failures = policy.failures(&[], now);
            assert_eq!(failures.get(network()).unwrap(), "no");
            assert_eq!(failures.get(Subject::Device(2)), None);
            now = due;
            assert_eq!(policy.failures(&[repair()], now), Failures::default());
        }
        assert_eq!(delays, [500, 1000, 2000, 4000, 5000, 5000]);
        policy.succeeded(&repair(), now);
        policy.failed(&repair(), "no".to_owned(), now);
        assert_eq!(policy.due(now), Some(now + RETRY_MIN));
    }

    #[test]
    fn forgets_refusal_of_a_subject_without_steps() {
        let mut policy = RetryPolicy::default();
        let now = Instant::now();
        policy.failed(&repair(), "no".to_owned(), now);
        policy.failures(&[], now + RETRY_MIN);
        policy.failed(&repair(), "no".to_owned(), now + RETRY_MIN);
        assert_eq!(policy.due(now), Some(now + RETRY_MIN * 2));
    }

    #[test]
    fn holds_off_repairs_that_are_undone() {
        let mut policy = RetryPolicy::default();
        let now = Instant::now();
        for _ in 0..REPAIRS {
            policy.succeeded(&repair(), now);
            assert_eq!(policy.failures(&[], now), Failures::default());
        }
        policy.succeeded(&repair(), now);
        assert!(policy.failures(&[], now).get(network()).is_some());
        assert_eq!(policy.due(now), Some(now + HOLD_OFF));
        let later = now + HOLD_OFF;
        assert_eq!(policy.failures(&[], later), Failures::default());
        policy.succeeded(&repair(), later);
        assert!(policy.failures(&[], later).get(network()).is_some());
        let quiet = later + QUIET;
        policy.failures(&[], quiet);
        policy.succeeded(&repair(), quiet);
        assert_eq!(policy.failures(&[], quiet), Failures::default());
    }

    #[test]
    fn a_subject_is_contested_while_it_is_repaired_again_and_again() {
        let mut policy = RetryPolicy::default();
        let mut now = Instant::now();
        for _ in 0..20 {
            policy.succeeded(&repair(), now);
            now += HOLD_OFF;
        }
        // Repaired, and not changed again yet: it may be within a moment.
        assert_eq!(policy.failures(&[], now), Failures::default());
        assert_eq!(policy.contested(now).collect::<Vec<_>>(), [network()]);
        assert_eq!(policy.due(now), Some(now + CONTESTED - HOLD_OFF));
        assert_eq!(policy.contested(now + CONTESTED).next(), None);
        // Each repair lasts: nothing is contested, however many they are.
        for _ in 0..20 {
            now += CONTESTED;
            policy.succeeded(&repair(), now);
        }
        assert_eq!(policy.contested(now).next(), None);
    }

    #[test]
    fn token_bucket_allows_a_burst_then_one_per_interval() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(now);
        let is_ready = |bucket: &TokenBucket| bucket.available_at().is_none_or(|at| at <= now);
        let burst = (0..1000)
            .take_while(|_| {
                is_ready(&bucket) && {
                    bucket.take(now);
                    true
                }
            })
            .count();
        assert_eq!(u32::try_from(burst).unwrap(), BURST + 1);
        assert_eq!(bucket.available_at(), Some(now + INTERVAL));
    }
}
