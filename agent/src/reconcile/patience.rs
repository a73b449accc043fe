//! When what did not work is tried again, and how often what somebody undoes is done again. Owns the counting; reads no clock:
//! the time is an argument.
//!
//! What the kernel refuses is tried again after a pause that doubles from [`RETRY_MIN`] to [`RETRY_MAX`], for ever. What
//! is undone is repaired at once, [`AT_ONCE`] times; after that only every [`HOLD`], until it has been left alone for
//! [`QUIET`]. And reasons to look at everything are taken up [`BURST`] times at once, then only one each [`BEAT`].

use std::collections::BTreeMap;
use std::time::Duration;

use otherix_schemas::outcome::ResourceRef;
use tokio::time::Instant;

use crate::model::plan::{Failures, Step};

/// Pauses before the kernel is asked again what it refused.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);

const AT_ONCE: u32 = 10;
const HOLD: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_secs(10);

/// Said while what is undone again and again is left undone.
const UNDONE: &str = "somebody else changes it again and again";

const BURST: u32 = 50;
const BEAT: Duration = Duration::from_millis(20);

/// What a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    ResourceRef(ResourceRef),
    Device(u32),
    Rules,
}

#[derive(Debug)]
struct Refusal {
    error: String,
    pause: Duration,
    until: Instant,
}

#[derive(Debug)]
struct Repairs {
    count: u32,
    last: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Patience {
    refusals: BTreeMap<Subject, Refusal>,
    repairs: BTreeMap<Subject, Repairs>,
}

impl Patience {
    /// The kernel refused a step.
    pub(super) fn refused(&mut self, step: &Step, error: String, now: Instant) {
        let before = self.refusals.get(&subject(step)).map(|refusal| refusal.pause);
        let pause = before.map_or(RETRY_MIN, |pause| (pause * 2).min(RETRY_MAX));
        self.refusals.insert(subject(step), Refusal { error, pause, until: now + pause });
    }

    /// A step was taken.
    pub(super) fn done(&mut self, step: &Step, now: Instant) {
        let subject = subject(step);
        self.refusals.remove(&subject);
        // Nobody undoes a removal, and that the rules are written and the forwarding changed often may be because networks and
        // NICs come and go.
        if matches!(step, Step::Rules(_) | Step::Forward { .. } | Step::Remove { .. }) {
            return;
        }
        let repairs = self.repairs.entry(subject).or_insert(Repairs { count: 0, last: now });
        repairs.count += 1;
        repairs.last = now;
    }

    /// A step's refusal is explained by what is seen now, and needs no pause: the kernel tells when that changes.
    pub(super) fn excuse(&mut self, resource: ResourceRef) {
        self.refusals.remove(&Subject::ResourceRef(resource));
    }

    /// What is not to be done for now. Forgets what need not be remembered any more: refusals whose pause is over, unless they
    /// are of the steps that are `left`, and repairs that lasted.
    pub(super) fn failures(&mut self, left: &[Step], now: Instant) -> Failures {
        self.repairs.retain(|_, repairs| now < repairs.last + QUIET);
        if self.refusals.values().any(|refusal| refusal.until <= now) {
            let left: std::collections::BTreeSet<_> = left.iter().map(subject).collect();
            self.refusals.retain(|subject, refusal| now < refusal.until || left.contains(subject));
        }
        let mut failures = Failures::default();
        let held = self.held(now).map(|(subject, _)| (subject, UNDONE.to_owned()));
        let refused = self.refusals.iter().filter(|(_, refusal)| now < refusal.until);
        for (subject, error) in held.chain(refused.map(|(subject, refusal)| (*subject, refusal.error.clone()))) {
            match subject {
                Subject::ResourceRef(ResourceRef::Network(network)) => drop(failures.networks.insert(network, error)),
                Subject::ResourceRef(ResourceRef::Nic(nic)) => drop(failures.nics.insert(nic, error)),
                Subject::Device(index) => drop(failures.devices.insert(index, error)),
                Subject::Rules => failures.rules = Some(error),
            }
        }
        failures
    }

    /// When the next pause is over.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let refusals = self.refusals.values().map(|refusal| refusal.until).filter(|until| now < *until);
        refusals.chain(self.held(now).map(|(_, until)| until)).min()
    }

    fn held(&self, now: Instant) -> impl Iterator<Item = (Subject, Instant)> {
        let held = self.repairs.iter().filter(|(_, repairs)| repairs.count > AT_ONCE);
        held.map(|(subject, repairs)| (*subject, repairs.last + HOLD)).filter(move |(_, until)| now < *until)
    }
}

fn subject(step: &Step) -> Subject {
    match step {
        Step::Create { network, .. }
        | Step::Repair { network, .. }
        | Step::CreateVtep { network, .. }
        | Step::RepairVtep { network, .. }
        | Step::Forward { network, .. } => Subject::ResourceRef(ResourceRef::Network(*network)),
        Step::CreateTap { nic, .. } | Step::RepairTap { nic, .. } => Subject::ResourceRef(ResourceRef::Nic(*nic)),
        Step::Remove { index, .. } | Step::Uplink { index, .. } => Subject::Device(*index),
        Step::Rules(_) => Subject::Rules,
    }
}

/// How fast reasons to look at everything are taken up.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the next one would be due if they came one each beat.
    due: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// From when on the next may be taken up.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.checked_sub(BEAT * BURST)
    }

    /// One was taken up.
    pub(super) fn step(&mut self, now: Instant) {
        self.due = self.due.max(now) + BEAT;
    }
}

#[cfg(test)]
mod tests {
    use otherix_schemas::id::NetworkId;
    use uuid::Uuid;

    use super::*;
    use crate::model::plan::Changes;

    fn repair() -> Step {
        Step::Repair { network: network(), index: 2, changes: Changes::default() }
    }

    fn network() -> NetworkId {
        NetworkId::new(Uuid::nil())
    }

    #[test]
    fn pauses_double_up_to_the_longest_for_each_step_of_its_own() {
        let mut patience = Patience::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            patience.refused(&repair(), "no".to_owned(), now);
            let due = patience.due(now).unwrap();
            pauses.push((due - now).as_millis());
            assert_eq!(patience.failures(&[], now).networks[&network()], "no");
            assert!(patience.failures(&[], now).devices.is_empty());
            now = due;
            assert_eq!(patience.failures(&[repair()], now), Failures::default());
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 5000, 5000]);
        patience.done(&repair(), now);
        patience.refused(&repair(), "no".to_owned(), now);
        assert_eq!(patience.due(now), Some(now + RETRY_MIN));
    }

    #[test]
    fn a_refusal_that_no_step_follows_is_forgotten() {
        let mut patience = Patience::default();
        let now = Instant::now();
        patience.refused(&repair(), "no".to_owned(), now);
        patience.failures(&[], now + RETRY_MIN);
        patience.refused(&repair(), "no".to_owned(), now + RETRY_MIN);
        assert_eq!(patience.due(now), Some(now + RETRY_MIN * 2));
    }

    #[test]
    fn what_is_undone_over_and_over_is_held_back_until_it_is_left_alone() {
        let mut patience = Patience::default();
        let now = Instant::now();
        for _ in 0..AT_ONCE {
            patience.done(&repair(), now);
            assert_eq!(patience.failures(&[], now), Failures::default());
        }
        patience.done(&repair(), now);
        assert!(patience.failures(&[], now).networks.contains_key(&network()));
        assert_eq!(patience.due(now), Some(now + HOLD));
        let later = now + HOLD;
        assert_eq!(patience.failures(&[], later), Failures::default());
        patience.done(&repair(), later);
        assert!(patience.failures(&[], later).networks.contains_key(&network()));
        let quiet = later + QUIET;
        patience.failures(&[], quiet);
        patience.done(&repair(), quiet);
        assert_eq!(patience.failures(&[], quiet), Failures::default());
    }

    #[test]
    fn a_burst_is_taken_up_at_once_and_then_one_each_beat() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let ready = |pace: &Pace| pace.next().is_none_or(|next| next <= now);
        let burst = (0..1000)
            .take_while(|_| {
                ready(&pace) && {
                    pace.step(now);
                    true
                }
            })
            .count();
        assert_eq!(u32::try_from(burst).unwrap(), BURST + 1);
        assert_eq!(pace.next(), Some(now + BEAT));
    }
}
