//! The supervisor, with a simulated QEMU and guest.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn desired(power: Power, request: u64) -> Desired {
    Desired { power, request, restart: None, stop_timeout: 30 * SECOND }
}

fn absent() -> Observed {
    Observed::Absent { last_words: None }
}

fn pauses() -> Vec<Duration> {
    [1, 2, 4, 8].map(Duration::from_secs).to_vec()
}

fn supervisor() -> Supervisor {
    Supervisor::new(Memory::default(), "boot-1", pauses())
}

/// How a guest behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Temper {
    Obedient,
    /// Does not notice the power button.
    Deaf,
    /// Ends, or panics, this many seconds after its start.
    Crashing(u64),
    Panicking(u64),
    PoweringOff(u64),
    /// QEMU does not answer from the start.
    Silent,
}

/// A machine with one VM, whose QEMU does what it is told.
#[derive(Debug)]
struct Simulation {
    supervisor: Supervisor,
    observed: Observed,
    started_at: Duration,
    now: Duration,
    temper: Temper,
    actions: Vec<(Duration, Action)>,
    decision: Option<Decision>,
}

impl Simulation {
    fn new(temper: Temper) -> Self {
        Self {
            supervisor: supervisor(),
            observed: absent(),
            started_at: Duration::ZERO,
            now: 1000 * SECOND,
            temper,
            actions: Vec::new(),
            decision: None,
        }
    }

    fn act(&mut self, action: Action) {
        let is_absent = matches!(self.observed, Observed::Absent { .. });
        assert_eq!(action == Action::Start, is_absent, "{action:?} with {:?}", self.observed);
        self.actions.push((self.now, action));
        let running = self.observed == Observed::Machine(RunState::Running);
        self.observed = match action {
            Action::Start => {
                self.started_at = self.now;
                Observed::Starting
            }
            Action::Kill | Action::Quit => absent(),
            Action::PowerDown if running && self.temper == Temper::Obedient => Observed::Machine(RunState::Shutdown),
            Action::Pause if running => Observed::Machine(RunState::Paused),
            Action::Resume => Observed::Machine(RunState::Running),
            Action::PowerDown | Action::Pause | Action::Reset => self.observed.clone(),
        };
    }

    /// What happens by itself.
    fn evolve(&mut self) {
        let age = self.now.saturating_sub(self.started_at);

        let running = self.observed == Observed::Machine(RunState::Running);
        match (&self.observed, self.temper) {
            (Observed::Starting, Temper::Silent) => {}
            (Observed::Starting, _) if is_due(age, 1) => self.observed = Observed::Machine(RunState::Running),
            (_, Temper::Crashing(seconds)) if running && is_due(age, seconds) => self.observed = absent(),
            (_, Temper::Panicking(seconds)) if running && is_due(age, seconds) => {
                self.observed = Observed::Machine(RunState::GuestPanicked);
            }
            (_, Temper::PoweringOff(seconds)) if running && is_due(age, seconds) => {
                self.observed = Observed::Machine(RunState::Shutdown);
            }
            _ => {}
        }
    }

    fn step(&mut self, desired: &Desired) {
        self.evolve();
        let decision = self.supervisor.step(desired, &self.observed, self.now);
        assert!(decision.wake_at.is_none_or(|wake_at| wake_at > self.now), "{decision:?} at {:?}", self.now);
        if let Some(action) = decision.action {
            self.act(action);
        }
        self.decision = Some(decision);
    }

    /// Steps each second, until a time has passed.
    fn run(&mut self, desired: &Desired, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(desired);
            self.now += SECOND;
        }
    }

    fn count(&self, action: Action) -> usize {
        self.actions.iter().filter(|(_, found)| *found == action).count()
    }

    fn phase(&self) -> Phase {
        self.decision.as_ref().unwrap().phase
    }

    fn cause(&self) -> Option<Cause> {
        self.decision.as_ref().unwrap().cause.clone()
    }
}

fn is_due(age: Duration, seconds: u64) -> bool {
    age >= Duration::from_secs(seconds)
}

#[test]
fn starts_and_stops_in_good_order() {
    let mut simulation = Simulation::new(Temper::Obedient);
    simulation.run(&desired(Power::Running, 1), 5 * SECOND);
    assert_eq!((simulation.phase(), simulation.cause()), (Phase::Running, None));
    simulation.run(&desired(Power::Stopped, 2), 5 * SECOND);
    assert_eq!((simulation.phase(), simulation.cause()), (Phase::Stopped, None));
    let actions: Vec<_> = simulation.actions.iter().map(|(_, action)| *action).collect();
    assert_eq!(actions, [Action::Start, Action::PowerDown, Action::Quit]);
    // And again: an end that was asked for is no failure.
    simulation.run(&desired(Power::Running, 3), 5 * SECOND);
    assert_eq!((simulation.phase(), simulation.cause()), (Phase::Running, None));
}

#[test]
fn kills_a_guest_that_does_not_shut_down() {
    let mut simulation = Simulation::new(Temper::Deaf);
    simulation.run(&desired(Power::Running, 1), 5 * SECOND);
    let asked = simulation.now;
    simulation.run(&desired(Power::Stopped, 2), 60 * SECOND);
    assert_eq!(simulation.phase(), Phase::Stopped);
    assert_eq!(simulation.count(Action::PowerDown), 3);
    assert_eq!(simulation.actions.last(), Some(&(asked + 30 * SECOND, Action::Kill)));

    simulation.run(&desired(Power::Running, 3), 5 * SECOND);
    let asked = simulation.now;
    let forced = Desired { stop_timeout: Duration::ZERO, ..desired(Power::Stopped, 4) };
    simulation.run(&forced, 5 * SECOND);
    assert_eq!(simulation.actions.last(), Some(&(asked, Action::Kill)));
    assert_eq!(simulation.count(Action::PowerDown), 3);
}

#[test]
fn pauses_grow_until_it_is_given_up() {
    for (temper, cause) in [
        (Temper::Crashing(2), Cause::Crashed { last_words: None }),
        (Temper::Panicking(2), Cause::Panicked),
        (Temper::Silent, Cause::Unresponsive),
    ] {
        let mut simulation = Simulation::new(temper);
        simulation.run(&desired(Power::Running, 1), 2000 * SECOND);
        assert_eq!(simulation.phase(), Phase::Failed, "{temper:?}");
        let last = Box::new(cause);
        assert_eq!(simulation.cause(), Some(Cause::GivenUp { failures: FAILURES_MAX, last }));
        let starts: Vec<_> =
            simulation.actions.iter().filter(|(_, action)| *action == Action::Start).map(|(at, _)| *at).collect();
        assert_eq!(starts.len(), FAILURES_MAX as usize, "{temper:?}");
        let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted() && gaps[4] >= gaps[0] + 7 * SECOND, "{temper:?}: {gaps:?}");
        // Nothing more, until somebody asks.
        simulation.run(&desired(Power::Running, 1), 5000 * SECOND);
        assert_eq!(simulation.count(Action::Start), FAILURES_MAX as usize);
        simulation.temper = Temper::Obedient;
        simulation.run(&desired(Power::Running, 2), 10 * SECOND);
        assert_eq!((simulation.phase(), simulation.cause()), (Phase::Running, None));
    }
}

#[test]
fn rare_crashes_are_not_in_a_row() {
    let mut simulation = Simulation::new(Temper::Crashing(700));
    simulation.run(&desired(Power::Running, 1), 20_000 * SECOND);
    assert_ne!(simulation.phase(), Phase::Failed);
    assert!(simulation.count(Action::Start) > 25);
}

#[test]
fn a_guest_that_powers_itself_off_stays_off() {
    let mut simulation = Simulation::new(Temper::PoweringOff(5));
    simulation.run(&desired(Power::Running, 1), 100 * SECOND);
    assert_eq!((simulation.phase(), simulation.cause()), (Phase::Stopped, Some(Cause::PoweredOff)));
    assert_eq!(simulation.count(Action::Start), 1);
    // Also for the next agent, and after a restart of the machine.
    let memory = serde_json::to_string(simulation.supervisor.memory()).unwrap();
    let mut next = Supervisor::new(serde_json::from_str(&memory).unwrap(), "boot-2", pauses());
    let decision = next.step(&desired(Power::Running, 1), &absent(), simulation.now);
    assert_eq!((decision.action, decision.phase), (None, Phase::Stopped));
    let decision = next.step(&desired(Power::Running, 2), &absent(), simulation.now);
    assert_eq!((decision.action, decision.phase), (Some(Action::Start), Phase::Starting));
}

#[test]
fn a_restart_of_the_machine_is_no_crash() {
    let mut simulation = Simulation::new(Temper::Obedient);
    simulation.run(&desired(Power::Running, 1), 5 * SECOND);
    let memory = simulation.supervisor.memory().clone();
    let mut same = Supervisor::new(memory.clone(), "boot-1", pauses());
    assert_eq!(same.step(&desired(Power::Running, 1), &absent(), SECOND).action, None);
    assert_eq!(same.memory().failures, 1);
    let mut other = Supervisor::new(memory, "boot-2", pauses());
    assert_eq!(other.step(&desired(Power::Running, 1), &absent(), SECOND).action, Some(Action::Start));
    assert_eq!(other.memory().failures, 0);
}

#[test]
fn reboots_resets_and_pauses_once() {
    let mut simulation = Simulation::new(Temper::Obedient);
    simulation.run(&desired(Power::Running, 1), 5 * SECOND);
    simulation.actions.clear();
    let reboot = Desired { restart: Some(Restart::Reboot), ..desired(Power::Running, 2) };
    simulation.run(&reboot, 20 * SECOND);
    let reset = Desired { restart: Some(Restart::Reset), ..desired(Power::Running, 3) };
    simulation.run(&reset, 20 * SECOND);
    simulation.run(&desired(Power::Paused, 4), 20 * SECOND);
    assert_eq!((simulation.phase(), simulation.cause()), (Phase::Running, Some(Cause::Paused)));
    simulation.run(&desired(Power::Running, 5), 20 * SECOND);
    // A paused guest hears no button.
    simulation.run(&desired(Power::Paused, 6), 5 * SECOND);
    simulation.run(&desired(Power::Stopped, 7), 5 * SECOND);
    let actions: Vec<_> = simulation.actions.iter().map(|(_, action)| *action).collect();
    use Action::{Pause, PowerDown, Quit, Reset, Resume, Start};
    assert_eq!(actions, [PowerDown, Quit, Start, Reset, Pause, Resume, Pause, Resume, PowerDown, Quit]);
}

#[test]
fn a_start_during_a_shutdown_starts_it_again() {
    let mut simulation = Simulation::new(Temper::Deaf);
    simulation.run(&desired(Power::Running, 1), 5 * SECOND);
    simulation.run(&desired(Power::Stopped, 2), 3 * SECOND);
    // The guest shuts down only now.
    simulation.observed = Observed::Machine(RunState::Shutdown);
    simulation.run(&desired(Power::Running, 3), 10 * SECOND);
    assert_eq!((simulation.phase(), simulation.count(Action::Start)), (Phase::Running, 2));
}

#[test]
fn an_error_of_the_disk_is_tried_again() {
    let mut simulation = Simulation::new(Temper::Obedient);
    simulation.run(&desired(Power::Running, 1), 5 * SECOND);
    simulation.observed = Observed::Machine(RunState::IoError);
    simulation.step(&desired(Power::Running, 1));
    assert_eq!(simulation.cause(), Some(Cause::DiskError));
    assert_eq!(simulation.count(Action::Resume), 1);
}

fn tempers() -> impl Strategy<Value = Temper> {
    prop_oneof![
        Just(Temper::Obedient),
        Just(Temper::Deaf),
        (1..900_u64).prop_map(Temper::Crashing),
        (1..900_u64).prop_map(Temper::Panicking),
        (1..900_u64).prop_map(Temper::PoweringOff),
        Just(Temper::Silent),
    ]
}

fn requests() -> impl Strategy<Value = (Power, Option<Restart>, u64, u64)> {
    let power = prop_oneof![Just(Power::Running), Just(Power::Paused), Just(Power::Stopped)];
    let restart = prop_oneof![Just(None), Just(Some(Restart::Reboot)), Just(Some(Restart::Reset))];
    (power, restart, 0..60_u64, 1..400_u64)
}

proptest! {
    /// Whatever is asked for, in whatever order, of whatever guest, with an agent that is restarted now and then: an
    /// action fits what is there (`act` asserts it), it settles, and at the end it is as wanted.
    #[test]
    fn settles(
        steps in prop::collection::vec((requests(), tempers(), any::<bool>()), 1..12),
        last in requests(),
    ) {
        let mut simulation = Simulation::new(Temper::Obedient);
        for (request, ((power, restart, timeout, time), temper, is_restarted)) in (1..).zip(steps) {
            simulation.temper = temper;
            let desired = Desired { power, request, restart, stop_timeout: Duration::from_secs(timeout) };
            simulation.run(&desired, Duration::from_secs(time));
            if is_restarted {
                let memory = serde_json::to_vec(simulation.supervisor.memory()).unwrap();
                simulation.supervisor = Supervisor::new(serde_json::from_slice(&memory).unwrap(), "boot-1", pauses());
            }
        }
        let (power, restart, timeout, _) = last;
        simulation.temper = Temper::Obedient;
        let desired = Desired { power, request: 1000, restart, stop_timeout: Duration::from_secs(timeout) };
        simulation.run(&desired, 300 * SECOND);
        let expected = match power {
            Power::Stopped => absent(),
            Power::Running => Observed::Machine(RunState::Running),
            Power::Paused => Observed::Machine(RunState::Paused),
        };
        prop_assert_eq!(&simulation.observed, &expected);
        let done = simulation.actions.len();
        simulation.run(&desired, 100 * SECOND);
        prop_assert_eq!(simulation.actions.len(), done);
    }
}
