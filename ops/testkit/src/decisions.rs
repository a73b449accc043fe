//! Given / when / then for decisions: given these events, when this command comes, then these events follow, or this
//! rejection. Equality throughout, on events and on rejections.

use otherix_commands::config::{ClusterConfig, Identity};
use otherix_commands::domain::{Decision, Rejection, State, decide};
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::command::Command;
use otherix_schemas::event::Event;
use otherix_schemas::id::{ClusterId, CorrelationId, EventId};
use otherix_schemas::position::Epoch;
use otherix_schemas::timestamp::Timestamp;
use uuid::Uuid;

/// The cluster that all test events are of.
pub const IDENTITY: Identity = Identity { cluster: ClusterId::new(Uuid::from_u128(1)), epoch: Epoch::FIRST };

/// What has happened.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The state that it amounts to.
    pub state: State,
    /// What decisions depend on beyond it.
    pub config: ClusterConfig,
    /// The events, as they were recorded.
    pub envelope: Vec<EventEnvelope>,
}

/// What a command led to.
#[derive(Debug)]
pub struct Then {
    /// The events, or why there are none.
    pub result: Result<Vec<Event>, Rejection>,
}

/// Given these events, one after another, a second apart.
pub fn given(events: impl IntoIterator<Item = Event>) -> Given {
    let mut given = Given::default();
    for event in events {
        given.record(event);
    }
    given
}

impl Given {
    /// The same with another configuration.
    #[must_use]
    pub fn configured(self, config: ClusterConfig) -> Self {
        Self { config, ..self }
    }

    /// One more event.
    pub fn record(&mut self, event: Event) {
        let position = self.state.position().next();
        let seconds = i64::try_from(position.get()).expect("few events");
        let header = Header {
            cluster: IDENTITY.cluster,
            id: EventId::new(Uuid::from_u128(u128::from(position.get()))),
            position,
            decision_prev: self.state.decision_head(),
            epoch: IDENTITY.epoch,
            stream_version: self.state.next_version(event.stream_id()),
            time: Timestamp::from_unix_micros(seconds * 1_000_000).expect("a time of this century"),
            actor: "admin".parse().expect("a user"),
            correlation_id: CorrelationId::new(Uuid::nil()),
            causation_id: None,
            traceparent: None,
        };
        let envelope = EventEnvelope { header, event };
        self.state.evolve(&envelope);
        self.envelope.push(envelope);
    }

    /// When this command comes, at the time of the last event.
    pub fn when(&self, command: &Command) -> Then {
        Then { result: self.decision(command).map(|decision| decision.events) }
    }

    /// What is decided when this command comes.
    ///
    /// # Errors
    /// When the command is rejected.
    pub fn decision(&self, command: &Command) -> Result<Decision, Rejection> {
        let at = self.state.time().unwrap_or_else(|| Timestamp::from_unix_micros(0).expect("a time"));
        decide(&self.state, &self.config, at, command)
    }

    /// Decides a command and takes in what follows.
    ///
    /// # Errors
    /// When the command is rejected.
    pub fn carry_out(&mut self, command: &Command) -> Result<Vec<Event>, Rejection> {
        let events = self.when(command).result?;
        for event in events.clone() {
            self.record(event);
        }
        Ok(events)
    }
}

impl Then {
    /// Then exactly these events follow.
    ///
    /// # Panics
    /// When others do.
    #[track_caller]
    pub fn then(self, events: impl Into<Vec<Event>>) {
        assert_eq!(self.result, Ok(events.into()));
    }

    /// Then the command is rejected for exactly this reason.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn then_rejected(self, rejection: Rejection) {
        assert_eq!(self.result, Err(rejection));
    }
}
