//! The writer's memory: the state as decided so far, ahead of what is durable, and the batch that
//! is to be stored next. No I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::command::Command;
use otherix_schemas::event::Event;
use otherix_schemas::id::{EventId, NetworkId};
use otherix_schemas::node::{NodeCommand, NodeEvent, NodeReconciled};
use otherix_schemas::outcome::ResourceRef;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use tokio::sync::oneshot;

use super::ask::{Ask, Envelope, Outcome, Refusal};
use super::keys::{Keys, Known};
use crate::config::{ClusterConfig, Identity};
use crate::domain::{Decision, Roster, State, answer, decide};
use crate::journal::{Batch, Digest, Entry, Handled};

/// Most networks in a batch that others' reports are waited for: of more than that a node speaks when it has just started.
const FEW: usize = 16;

/// What the writer decides with.
pub(super) struct Core {
    pub(super) config: ClusterConfig,
    pub(super) identity: Identity,
    pub(super) state: State,
    pub(super) digest: Digest,
    pub(super) keys: Keys,
}

/// A batch, and who is to be answered when it is durable.
pub(super) struct Staged {
    pub(super) after: Position,
    pub(super) batch: Batch,
    pub(super) answers: Vec<(oneshot::Sender<Outcome>, Outcome)>,
    /// The head after the batch.
    pub(super) position: Position,
    /// The last decision after the batch.
    pub(super) decision_head: Position,
    /// The nodes after the batch.
    pub(super) roster: Arc<Roster>,
    /// The networks that the batch says something new of, as long as that is all that it is asked for, and they are few.
    reported: Option<BTreeSet<NetworkId>>,
}

/// What comes from outside for each decision.
pub(super) struct Draw<'a> {
    pub(super) now: Timestamp,
    pub(super) event_id: &'a mut dyn FnMut() -> EventId,
}

impl Core {
    /// An empty batch behind all that has been decided.
    pub(super) fn begin(&self) -> Staged {
        Staged {
            after: self.state.position(),
            batch: Batch::default(),
            answers: Vec::new(),
            position: self.state.position(),
            decision_head: self.state.decision_head(),
            roster: Arc::clone(self.state.roster()),
            reported: Some(BTreeSet::new()),
        }
    }

    /// Whether the batch holds nothing but what some nodes say of networks, and others have yet to say it.
    pub(super) fn is_incomplete(&self, staged: &Staged) -> bool {
        staged.reported.iter().flatten().any(|id| self.state.awaits_word_of(*id))
    }

    /// Decides one command, and adds what follows to the batch.
    pub(super) fn take(&mut self, envelope: Envelope, staged: &mut Staged, draw: Draw<'_>) {
        let Envelope { ask, reply } = envelope;
        if !matches!(ask.command, Command::Node(NodeCommand::RecordReport(_))) {
            staged.reported = None;
        }
        let outcome = self.outcome(&ask, staged, draw);
        staged.answers.push((reply, outcome));
        staged.position = self.state.position();
        staged.decision_head = self.state.decision_head();
        staged.roster = Arc::clone(self.state.roster());
    }

    fn outcome(&mut self, ask: &Ask, Staged { batch, reported, .. }: &mut Staged, draw: Draw<'_>) -> Outcome {
        if let Some(key) = &ask.key {
            batch.forget_before = self.keys.expire(draw.now).or(batch.forget_before);
            match self.keys.look_up(&ask.actor, key) {
                Known::New => {}
                Known::Again(reply) => return Ok(reply),
                Known::Other => return Err(Refusal::KeyReused),
            }
        }
        let now = self.state.time().map_or(draw.now, |last| last.max(draw.now));
        let decision = decide(&self.state, &self.config, draw.now, &ask.command)?;
        let envelope = self.record(ask, &decision, now, draw.event_id);
        let (entries, reply) = self.encode(ask, &decision, &envelope)?;
        for (envelope, entry) in envelope.iter().zip(entries) {
            self.state.evolve(envelope);
            self.digest = entry.digest;
            batch.entries.push(entry);
            *reported = reported.take().and_then(|reported| with(reported, &envelope.event));
        }
        if let Some(key) = &ask.key {
            let handled = Handled {
                user: ask.actor.clone(),
                key: key.key.clone(),
                fingerprint: key.fingerprint,
                reply: reply.clone(),
                at: now,
            };
            batch.handled.push(handled.clone());
            self.keys.remember(handled);
        }
        Ok(reply)
    }

    /// Gives the decided events their headers.
    fn record(
        &self,
        ask: &Ask,
        decision: &Decision,
        time: Timestamp,
        event_id: &mut dyn FnMut() -> EventId,
    ) -> Vec<EventEnvelope> {
        let mut after = self.state.heads();
        let mut envelope = Vec::with_capacity(decision.events.len());
        for event in &decision.events {
            let header = Header {
                cluster: self.identity.cluster,
                id: event_id(),
                position: after.position.next(),
                decision_prev: after.decision_head,
                epoch: self.identity.epoch,
                stream_version: after.next_version(&self.state, event.stream_id()),
                time,
                actor: ask.actor.clone(),
                correlation_id: ask.correlation_id,
                causation_id: None,
                traceparent: ask.traceparent.clone(),
            };
            let event = EventEnvelope { header, event: event.clone() };
            after.pass(&event);
            envelope.push(event);
        }
        envelope
    }

    /// The bytes of the events and of the answer. If one of them has no JSON form, nothing happens.
    fn encode(
        &self,
        ask: &Ask,
        decision: &Decision,
        envelope: &[EventEnvelope],
    ) -> Result<(Vec<Entry>, Bytes), Refusal> {
        let broken = |error: serde_json::Error| Refusal::Unavailable(error.to_string());
        let mut digest = self.digest;
        let mut entries = Vec::with_capacity(envelope.len());
        for event in envelope {
            let body = Bytes::from(event.encode().map_err(broken)?);
            let entry = Entry::new(event, body, digest);
            digest = entry.digest;
            entries.push(entry);
        }
        let answer = answer(&self.state, self.identity, &ask.command, decision, envelope);
        Ok((entries, serde_json::to_vec(&answer).map_err(broken)?.into()))
    }
}

/// The networks that something is said of, with those of one more event; nothing if something else happened, or too much.
fn with(mut reported: BTreeSet<NetworkId>, event: &Event) -> Option<BTreeSet<NetworkId>> {
    let Event::Node(NodeEvent::Reconciled(NodeReconciled { results, .. })) = event else { return None };
    for result in results {
        let ResourceRef::Network(id) = result.resource else { return None };
        reported.insert(id);
    }
    (reported.len() <= FEW).then_some(reported)
}
