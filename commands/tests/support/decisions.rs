//! Given / when / then for decisions: given these events, when this command is decided, then exactly these events
//! follow, or this rejection.
#![expect(clippy::expect_used, reason = "test support: a failed assumption is a failed test")]
#![allow(dead_code, reason = "each test binary that includes this file uses a part of it")]

use otherix_commands::config::{ClusterConfig, StoreIdentity};
use otherix_commands::domain::{Decision, Rejection, State, decide};
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::command::Command;
use otherix_schemas::event::Event;
use otherix_schemas::id::{ClusterId, CorrelationId, EventId};
use otherix_schemas::position::Epoch;
use otherix_schemas::timestamp::Timestamp;
use uuid::Uuid;

/// The cluster and epoch of every test event.
pub(crate) const IDENTITY: StoreIdentity =
    StoreIdentity { cluster: ClusterId::new(Uuid::from_u128(1)), epoch: Epoch::FIRST };

/// The events so far, and the state they evolve to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    pub(crate) state: State,
    pub(crate) config: ClusterConfig,
    pub(crate) envelopes: Vec<EventEnvelope>,
}

/// The outcome of a decision.
#[derive(Debug)]
pub(crate) struct Then {
    pub(crate) result: Result<Vec<Event>, Rejection>,
}

/// Records these events in order, one second apart.
pub(crate) fn given(events: impl IntoIterator<Item = Event>) -> Given {
    let mut given = Given::default();
    for event in events {
        given.record(event);
    }
    given
}

impl Given {
    /// Returns the same history with another configuration.
    #[must_use]
    pub(crate) fn configured(self, config: ClusterConfig) -> Self {
        Self { config, ..self }
    }

    /// Appends an event to the history.
    pub(crate) fn record(&mut self, event: Event) {
        let position = self.state.position().next();
        let seconds = i64::try_from(position.get()).expect("fewer than 2^63 events");
        let header = Header {
            cluster: IDENTITY.cluster,
            id: EventId::new(Uuid::from_u128(u128::from(position.get()))),
            position,
            decision_prev: self.state.decision_head(),
            epoch: IDENTITY.epoch,
            stream_version: self.state.next_version(event.stream_id()),
            time: Timestamp::from_unix_micros(seconds * 1_000_000).expect("a valid time"),
            actor: "admin".parse().expect("a valid user name"),
            correlation_id: CorrelationId::new(Uuid::nil()),
            causation_id: None,
            traceparent: None,
        };
        let envelope = EventEnvelope { header, event };
        self.state.evolve(&envelope);
        self.envelopes.push(envelope);
    }

    /// Decides `command` at the time of the last event.
    pub(crate) fn when(&self, command: &Command) -> Then {
        Then { result: self.decision(command).map(|decision| decision.events) }
    }

    /// Decides `command` and returns the whole decision.
    pub(crate) fn decision(&self, command: &Command) -> Result<Decision, Rejection> {
        let at = self.state.time().unwrap_or_else(|| Timestamp::from_unix_micros(0).expect("a valid time"));
        decide(&self.state, &self.config, at, command)
    }

    /// Decides `command` and records the events.
    pub(crate) fn execute(&mut self, command: &Command) -> Result<Vec<Event>, Rejection> {
        let events = self.when(command).result?;
        for event in events.clone() {
            self.record(event);
        }
        Ok(events)
    }
}

impl Then {
    /// Asserts that exactly these events follow.
    #[track_caller]
    pub(crate) fn then(self, events: impl Into<Vec<Event>>) {
        assert_eq!(self.result, Ok(events.into()));
    }

    /// Asserts that the command is rejected for exactly this reason.
    #[track_caller]
    pub(crate) fn then_rejected(self, rejection: Rejection) {
        assert_eq!(self.result, Err(rejection));
    }
}
