//! What to do with a VM next: a function of what is wanted, what is observed, and the time. It does no I/O and reads no
//! clock.
//!
//! The caller observes, calls [`Supervisor::step`], does the action, and calls again when something has changed or at
//! [`Decision::wake_at`]. Steps may be repeated at any time: an action is asked for again only when it is due again.

mod cause;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::cause::Cause;
use crate::qmp::RunState;

/// The longest pause before a start after a failure.
pub const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A VM that fails as often in a row is given up, until another request.
pub const FAILURES_MAX: u32 = 6;
/// Failures count as in a row unless the VM has run this long between them.
pub const STABLE: Duration = Duration::from_secs(600);
/// Between presses of the power button: some guests do not notice the first, during their boot.
pub const BUTTON_INTERVAL: Duration = Duration::from_secs(10);
/// How long QEMU may take to set up the VM, and to end when asked.
pub const PROCESS_TIMEOUT: Duration = Duration::from_secs(60);
/// Between attempts to end a process or to continue a machine after an error of its disk.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(5);

/// The power state that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    Running,
    Paused,
    Stopped,
}

/// What else a request asks for, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Restart {
    /// Shut the guest down, then start it, with the present spec.
    Reboot,
    /// Press the reset button.
    Reset,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Desired {
    pub power: Power,
    /// Identifies the decision: a VM that was given up, or has powered itself off, starts again with another number.
    pub request: u64,
    pub restart: Option<Restart>,
    /// How long the guest may take to shut down; zero does not ask it.
    pub stop_timeout: Duration,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// No process. What is known of the end of the last one, if it was seen.
    Absent {
        last_words: Option<String>,
    },
    /// A process that does not yet answer.
    Starting,
    Machine(RunState),
    /// A process that has answered before, and does not now.
    Unresponsive,
}

/// What the caller is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start a process.
    Start,
    /// Press the power button.
    PowerDown,
    /// Let QEMU end.
    Quit,
    /// Kill the process.
    Kill,
    Reset,
    Pause,
    Resume,
}

/// The phase to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Starting,
    Running,
    Stopping,
    Stopped,
    Failed,
}

/// What a step comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub action: Option<Action>,
    pub phase: Phase,
    pub cause: Option<Cause>,
    /// When to call again, if nothing changes before.
    pub wake_at: Option<Duration>,
}

/// What must outlive the agent: to be stored before the action of the step is done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The last request that was seen.
    request: Option<u64>,
    /// What of it is still to be done.
    restart: Option<Restart>,
    /// Why the VM stays down though it is to run.
    down: Option<Cause>,
    failures: u32,
    last_failure: Option<Cause>,
    /// The machine's start (`/proc/sys/kernel/random/boot_id`) in which there was a process.
    alive_in: Option<String>,
    /// Whether an end of the process is what was asked for.
    ending: bool,
    /// Whether the power button was pressed since the process started.
    button_pressed: bool,
}

/// The state machine of a VM.
#[derive(Debug, Clone)]
pub struct Supervisor {
    memory: Memory,
    boot_id: String,
    pauses: Vec<Duration>,
    /// When the process was first seen, or started.
    since: Option<Duration>,
    retry_at: Option<Duration>,
    stopping_since: Option<Duration>,
    /// When an action that is repeated was last asked for.
    button: Option<Duration>,
    quit: Option<Duration>,
    kill: Option<Duration>,
    resume: Option<Duration>,
}

impl Supervisor {
    /// `boot_id` is that of the machine's present start: a VM whose process ended with the machine has not crashed.
    /// `pauses` are those before a start after the first failure, the second, and so on, then [`MAX_PAUSE`].
    pub fn new(memory: Memory, boot_id: impl Into<String>, pauses: Vec<Duration>) -> Self {
        let boot_id = boot_id.into();
        let mut memory = memory;
        if memory.alive_in.as_ref().is_some_and(|alive_in| *alive_in != boot_id) {
            memory.alive_in = None;
            (memory.ending, memory.button_pressed) = (false, false);
        }
        Self {
            memory,
            boot_id,
            pauses,
            since: None,
            retry_at: None,
            stopping_since: None,
            button: None,
            quit: None,
            kill: None,
            resume: None,
        }
    }

    /// What is to be stored.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Decides. `now` is the time of a clock that only runs forwards, from any start.
    pub fn step(&mut self, desired: &Desired, observed: &Observed, now: Duration) -> Decision {
        self.take_request(desired);
        self.notice(observed, now);
        if self.is_to_be_down(desired)
            && let Some(decision) = self.bring_down(desired, observed, now)
        {
            return decision;
        }
        self.stopping_since = None;
        self.bring_up(desired, observed, now)
    }

    fn take_request(&mut self, desired: &Desired) {
        if self.memory.request == Some(desired.request) {
            return;
        }
        self.memory.request = Some(desired.request);
        self.memory.restart = desired.restart;
        self.memory.down = None;
        self.memory.failures = 0;
        self.memory.last_failure = None;
        self.retry_at = None;
        self.stopping_since = None;
        self.button = None;
    }

    /// Notices that a process has come or gone, and what the guest has done.
    fn notice(&mut self, observed: &Observed, now: Duration) {
        match observed {
            Observed::Absent { last_words } => {
                if self.memory.alive_in.take().is_some() && !self.memory.ending {
                    self.fail(Cause::Crashed { last_words: last_words.clone() }, now);
                }
                (self.memory.ending, self.memory.button_pressed) = (false, false);
                (self.since, self.button, self.quit, self.kill, self.resume) = (None, None, None, None, None);
                return;
            }
            Observed::Machine(RunState::Shutdown) if !self.memory.ending && !self.memory.button_pressed => {
                self.memory.down = Some(Cause::PoweredOff);
            }
            Observed::Machine(RunState::GuestPanicked) if !self.memory.ending => {
                self.memory.ending = true;
                self.fail(Cause::Panicked, now);
            }
            Observed::Machine(_) | Observed::Starting | Observed::Unresponsive => {}
        }
        self.memory.alive_in = Some(self.boot_id.clone());
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) >= STABLE && !self.memory.ending {
            self.memory.failures = 0;
            self.memory.last_failure = None;
        }
    }

    fn fail(&mut self, cause: Cause, now: Duration) {
        self.memory.failures = self.memory.failures.saturating_add(1);
        if self.memory.failures >= FAILURES_MAX {
            self.memory.down = Some(Cause::GivenUp { failures: self.memory.failures, last: Box::new(cause.clone()) });
        } else {
            let index = usize::try_from(self.memory.failures).unwrap_or(usize::MAX).saturating_sub(1);
            let pause = self.pauses.get(index).copied().unwrap_or(MAX_PAUSE);
            self.retry_at = Some(now.saturating_add(pause));
        }
        self.memory.last_failure = Some(cause);
    }

    fn is_to_be_down(&self, desired: &Desired) -> bool {
        desired.power == Power::Stopped || self.memory.down.is_some() || self.memory.restart == Some(Restart::Reboot)
    }

    /// `None` if the VM is down, and is to start again.
    fn bring_down(&mut self, desired: &Desired, observed: &Observed, now: Duration) -> Option<Decision> {
        if let Observed::Absent { .. } = observed {
            self.memory.restart = None;
            self.stopping_since = None;
            let cause = self.memory.down.clone();
            return (desired.power == Power::Stopped || cause.is_some()).then(|| {
                let is_failed = desired.power != Power::Stopped && matches!(cause, Some(Cause::GivenUp { .. }));
                let phase = if is_failed { Phase::Failed } else { Phase::Stopped };
                Decision { action: None, phase, cause, wake_at: None }
            });
        }
        let since = *self.stopping_since.get_or_insert(now);
        let deadline = since.saturating_add(desired.stop_timeout);
        let decide =
            |action, wake_at| Some(Decision { action, phase: Phase::Stopping, cause: None, wake_at: Some(wake_at) });
        match observed {
            Observed::Machine(RunState::Running | RunState::Prelaunch | RunState::Paused | RunState::IoError)
                if now < deadline && !self.memory.ending =>
            {
                // A machine that does not run does not notice the button.
                if !matches!(observed, Observed::Machine(RunState::Running)) {
                    let (action, again) = repeat(&mut self.resume, Action::Resume, REPEAT_INTERVAL, now);
                    return decide(action, again.min(deadline));
                }
                let (action, again) = repeat(&mut self.button, Action::PowerDown, BUTTON_INTERVAL, now);
                self.memory.button_pressed = true;
                decide(action, again.min(deadline))
            }
            Observed::Starting | Observed::Unresponsive if now < deadline && !self.memory.ending => {
                decide(None, deadline)
            }
            Observed::Absent { .. } | Observed::Machine(_) | Observed::Starting | Observed::Unresponsive => {
                let (action, again) = self.end(observed, now);
                decide(action, again)
            }
        }
    }

    /// Ends the process: in good order if the guest has shut down and QEMU obeys.
    fn end(&mut self, observed: &Observed, now: Duration) -> (Option<Action>, Duration) {
        self.memory.ending = true;
        if *observed == Observed::Machine(RunState::Shutdown) && self.kill.is_none() {
            let first = self.quit.is_none();
            let deadline = self.quit.get_or_insert(now).saturating_add(PROCESS_TIMEOUT);
            if now < deadline {
                return (first.then_some(Action::Quit), deadline);
            }
        }
        repeat(&mut self.kill, Action::Kill, REPEAT_INTERVAL, now)
    }

    fn bring_up(&mut self, desired: &Desired, observed: &Observed, now: Duration) -> Decision {
        let running = |action, cause, wake_at| Decision { action, phase: Phase::Running, cause, wake_at };
        let stable_at = self.since.map(|since| since.saturating_add(STABLE)).filter(|at| *at > now);
        match observed {
            Observed::Absent { .. } => self.start(now),
            Observed::Machine(_) | Observed::Starting | Observed::Unresponsive if self.memory.ending => {
                self.start_anew(observed, now)
            }
            Observed::Machine(RunState::GuestPanicked | RunState::Shutdown) => self.start_anew(observed, now),
            Observed::Starting => {
                let deadline = self.since.unwrap_or(now).saturating_add(PROCESS_TIMEOUT);
                if now < deadline {
                    let cause = self.memory.last_failure.clone();
                    return Decision { action: None, phase: Phase::Starting, cause, wake_at: Some(deadline) };
                }
                self.fail(Cause::Unresponsive, now);
                self.start_anew(observed, now)
            }
            Observed::Machine(RunState::Running) if desired.power == Power::Paused => {
                running(Some(Action::Pause), None, None)
            }
            Observed::Machine(RunState::Running) => {
                self.resume = None;
                let action = self.memory.restart.take().map(|_| Action::Reset);
                running(action, None, stable_at)
            }
            Observed::Machine(RunState::Paused) if desired.power == Power::Paused => {
                let action = self.memory.restart.take().map(|_| Action::Reset);
                running(action, Some(Cause::Paused), None)
            }
            Observed::Machine(state @ (RunState::Paused | RunState::Prelaunch | RunState::IoError)) => {
                let (action, again) = repeat(&mut self.resume, Action::Resume, REPEAT_INTERVAL, now);
                let cause = (*state == RunState::IoError).then_some(Cause::DiskError);
                running(action, cause, Some(again))
            }
            Observed::Machine(RunState::Other(name)) => running(None, Some(Cause::State(name.clone())), None),
            Observed::Unresponsive => running(None, Some(Cause::Unresponsive), None),
        }
    }

    /// Ends the process, so that another can be started.
    fn start_anew(&mut self, observed: &Observed, now: Duration) -> Decision {
        let (action, again) = self.end(observed, now);
        Decision { action, phase: Phase::Starting, cause: self.memory.last_failure.clone(), wake_at: Some(again) }
    }

    fn start(&mut self, now: Duration) -> Decision {
        let cause = self.memory.last_failure.clone();
        if let Some(retry_at) = self.retry_at.filter(|retry_at| now < *retry_at) {
            return Decision { action: None, phase: Phase::Starting, cause, wake_at: Some(retry_at) };
        }
        self.retry_at = None;
        self.since = Some(now);
        // It is fresh from its start: nothing is to be reset.
        self.memory.restart = None;
        self.memory.alive_in = Some(self.boot_id.clone());
        let wake_at = Some(now.saturating_add(PROCESS_TIMEOUT));
        Decision { action: Some(Action::Start), phase: Phase::Starting, cause, wake_at }
    }
}

/// An action that is asked for now, and again after each interval; and when.
fn repeat(
    last: &mut Option<Duration>,
    action: Action,
    interval: Duration,
    now: Duration,
) -> (Option<Action>, Duration) {
    match *last {
        Some(asked) if now < asked.saturating_add(interval) => (None, asked.saturating_add(interval)),
        Some(_) | None => {
            *last = Some(now);
            (Some(action), now.saturating_add(interval))
        }
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
