//! Whether packets of one size pass to a node and back: three unanswered probes say no, one answered probe says yes.
//! Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How long a reply is waited for before the next probe, unless the path is known to take longer.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// How long it is waited for at most.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How many probes must remain unanswered.
const TRIES: u8 = 3;

/// The result of the last probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckState {
    /// No probe was answered yet, and too few remained unanswered.
    Unknown,
    Passes,
    Fails,
}

#[derive(Clone, Debug)]
pub(super) struct Check {
    state: CheckState,
    /// Probes since the last reply.
    unanswered: u8,
    /// When the next probe is to be sent, or the last one is given up.
    due: Instant,
    sent: Option<Instant>,
    /// How long a reply is waited for: twice as long as the last one took.
    retry: Duration,
}

impl Check {
    pub(super) const fn new(now: Instant) -> Self {
        Self { state: CheckState::Unknown, unanswered: 0, due: now, sent: None, retry: RETRY }
    }

    pub(super) const fn state(&self) -> CheckState {
        self.state
    }

    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Whether the last probe was answered.
    pub(super) fn passes(&self) -> bool {
        self.state == CheckState::Passes && self.unanswered == 0
    }

    /// Returns whether a probe is to be sent now. `again` is the interval while it fails.
    pub(super) fn take(&mut self, now: Instant, again: Duration) -> bool {
        if now < self.due {
            return false;
        }
        if self.unanswered >= TRIES {
            self.state = CheckState::Fails;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.sent = Some(now);
        self.due = now + if self.state == CheckState::Fails { again.max(self.retry) } else { self.retry };
        true
    }

    /// A probe was answered after `took`: the next one is due after `interval`.
    pub(super) fn answered(&mut self, now: Instant, took: Duration, interval: Duration) {
        self.retry = (took * 2).clamp(RETRY, RETRY_MAX);
        (self.state, self.unanswered, self.due) = (CheckState::Passes, 0, now + interval);
    }

    /// The other node states that its probes are answered: those of this node may wait.
    pub(super) fn postpone(&mut self, now: Instant, interval: Duration) {
        if self.passes() {
            self.due = self.due.max(now + interval);
        }
    }

    /// Makes the next probe due at once, unless the last one was sent less than `pause` ago.
    pub(super) fn hurry(&mut self, now: Instant, pause: Duration) {
        if self.sent.is_none_or(|sent| now.duration_since(sent) >= pause) {
            self.due = self.due.min(now);
        }
    }

    /// Forgets the result.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = Self { sent: self.sent, retry: self.retry, ..Self::new(now) };
    }
}
