//! The writer's state in memory, as decided so far and ahead of what is durable, and the next batch to store. No I/O.

use std::collections::BTreeSet;

use bytes::Bytes;
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::command::Command;
use otherix_schemas::decision_chain::{ChainDigest, DecisionHead};
use otherix_schemas::event::{Event, Family};
use otherix_schemas::id::{EventId, NetworkId};
use otherix_schemas::node::{NodeCommand, NodeEvent, NodeReconciled};
use otherix_schemas::outcome::ResourceRef;
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Meta};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{Caller, Callers};
use otherix_tlog::tile::ENTRY_MAX;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::decision_log::DecisionLog;
use super::idempotency::{IdempotencyKeys, PriorUse, oldest_valid};
use super::request::{CommandRequest, CommandResult, DecisionOrigin, IdempotencyKey, Queued, Refusal};
use crate::config::{ClusterConfig, StoreIdentity};
use crate::domain::{Decision, EventNumbers, Roster, State, answer, decide};
use crate::store::{Batch, Digest, Entry, IdempotencyRecord, Replayed};

/// A batch with reports on more networks is not held back: so many are reported by a node that has just started.
const REPORTED_NETWORKS_MAX: usize = 16;

/// What commands are decided with.
pub(super) struct Decider {
    pub(super) config: ClusterConfig,
    pub(super) identity: StoreIdentity,
    pub(super) state: State,
    /// Digest of the last event.
    pub(super) digest: Digest,
    /// Digest of the decisions.
    pub(super) decisions: ChainDigest,
    pub(super) keys: IdempotencyKeys,
}

impl Decider {
    pub(super) fn new(config: ClusterConfig, identity: StoreIdentity, replayed: Replayed) -> Self {
        let Replayed { state, digest, decisions, epoch: _ } = replayed;
        Self { config, identity, state, digest, decisions, keys: IdempotencyKeys::default() }
    }

    /// Continues with the state as it is stored.
    pub(super) fn reset(&mut self, replayed: Replayed) {
        let Replayed { state, digest, decisions, epoch: _ } = replayed;
        self.state = state;
        self.digest = digest;
        self.decisions = decisions;
        self.keys.discard_pending();
    }

    pub(super) fn into_replayed(self) -> Replayed {
        Replayed { state: self.state, digest: self.digest, decisions: self.decisions, epoch: self.identity.epoch }
    }
}

/// A batch, and the answers to send when it is durable.
pub(super) struct Staged {
    /// The head before the batch.
    pub(super) after: Position,
    pub(super) batch: Batch,
    pub(super) answers: Vec<(oneshot::Sender<CommandResult>, CommandResult)>,
    /// The head after the batch.
    pub(super) position: Position,
    pub(super) decision_head: DecisionHead,
    /// The batch's events that change which nodes there are, or whether they are reachable.
    pub(super) membership: Vec<Event>,
    /// The batch's events about who may make requests.
    pub(super) callers: Vec<EventEnvelope>,
    /// What is logged once the batch is durable.
    pub(super) log: DecisionLog,
    /// When each command was submitted.
    pub(super) begun: Vec<Instant>,
    /// The networks reported on, as long as the batch holds nothing else and they are few.
    reported: Option<BTreeSet<NetworkId>>,
}

/// What a decision needs besides the [`Decider`].
pub(super) struct DecisionInputs<'a> {
    pub(super) now: Timestamp,
    pub(super) event_id: &'a mut dyn FnMut() -> EventId,
    /// What the store has under the request's idempotency key, if it was looked up.
    pub(super) stored: Option<IdempotencyRecord>,
}

impl Decider {
    /// The head of the chain of decisions.
    pub(super) fn decision_head(&self) -> DecisionHead {
        let StoreIdentity { cluster, epoch } = self.identity;
        DecisionHead { cluster, epoch, position: self.state.decision_head(), digest: self.decisions }
    }

    /// Returns an empty batch after everything that was decided.
    pub(super) fn begin(&self) -> Staged {
        Staged {
            after: self.state.position(),
            batch: Batch::default(),
            answers: Vec::new(),
            position: self.state.position(),
            decision_head: self.decision_head(),
            membership: Vec::new(),
            callers: Vec::new(),
            log: DecisionLog::default(),
            begun: Vec::new(),
            reported: Some(BTreeSet::new()),
        }
    }

    /// Returns whether the batch holds nothing but nodes' reports on networks, and reports of other nodes are pending.
    pub(super) fn is_incomplete(&self, staged: &Staged) -> bool {
        staged.reported.iter().flatten().any(|id| self.state.has_pending_reports(*id))
    }

    /// Decides one command, and adds the result to the batch.
    pub(super) fn add(&mut self, queued: Queued, staged: &mut Staged, inputs: DecisionInputs<'_>) {
        let Queued { request, dry_run, begun, reply } = queued;
        if !matches!(request.command, Command::Node(NodeCommand::RecordReport(_))) {
            staged.reported = None;
        }
        staged.begun.push(begun);
        let outcome = if dry_run { self.try_out(&request, inputs) } else { self.outcome(&request, staged, inputs) };
        staged.answers.push((reply, outcome));
        staged.position = self.state.position();
        staged.decision_head = self.decision_head();
    }

    /// Checks that the caller still has the right with which its command was admitted: commands before this one may
    /// have revoked it. What the control plane records by itself has no caller.
    fn check_caller(&self, request: &CommandRequest, now: Timestamp) -> Result<(), Refusal> {
        let Some(caller) = &request.caller else { return Ok(()) };
        let Caller { id, role, .. } = self.state.callers().find(&caller.key, Some(now))?;
        if (id, role) == (caller.id.clone(), caller.role) { Ok(()) } else { Err(Refusal::RoleChanged) }
    }

    fn outcome(&mut self, request: &CommandRequest, staged: &mut Staged, inputs: DecisionInputs<'_>) -> CommandResult {
        let DecisionInputs { now, event_id, stored } = inputs;
        self.check_caller(request, now)?;
        if let Some(key) = &request.key {
            match self.keys.find(&request.actor.id, key, stored, now) {
                PriorUse::None => {}
                PriorUse::Same(reply) => return Ok(reply),
                PriorUse::Other => return Err(Refusal::KeyReused),
            }
        }
        let time = self.state.time().map_or(now, |last| last.max(now));
        let Decision { events, unknown } = decide(&self.state, &self.config, now, &request.command)?;
        let envelopes = self.envelopes(request, events, time, event_id);
        let entries = self.entries(&envelopes)?;
        let answer = answer(&self.state, self.identity, &request.command, unknown, &envelopes);
        let reply = Bytes::from(serde_json::to_vec(&answer).map_err(unavailable)?);
        for (envelope, entry) in envelopes.into_iter().zip(entries) {
            let begun = staged.begun.last().copied().unwrap_or_else(Instant::now);
            staged.log.add(&self.state, (&envelope.event, &entry), (&request.actor, begun));
            self.state.evolve(&envelope);
            self.digest = entry.digest;
            if envelope.event.family() == Family::Decision {
                self.decisions = self.decisions.after(&entry.body);
            }
            staged.add(entry, envelope);
        }
        if let Some(IdempotencyKey { key, fingerprint }) = &request.key {
            let (user, key, reply) = (request.actor.id.clone(), key.clone(), reply.clone());
            let record = IdempotencyRecord { user, key, fingerprint: *fingerprint, reply, at: time };
            self.keys.add(&record);
            staged.batch.idempotency.push(record);
            if self.keys.is_deletion_due() {
                staged.batch.expire_before = oldest_valid(now);
            }
        }
        Ok(reply)
    }

    /// Decides a command without effect. Its answer still waits for the batch, which the decision may depend on.
    fn try_out(&self, request: &CommandRequest, inputs: DecisionInputs<'_>) -> CommandResult {
        let DecisionInputs { now, event_id, stored: _ } = inputs;
        self.check_caller(request, now)?;
        let time = self.state.time().map_or(now, |last| last.max(now));
        let Decision { events, unknown } = decide(&self.state, &self.config, now, &request.command)?;
        let envelopes = self.envelopes(request, events, time, event_id);
        self.entries(&envelopes)?;
        let answer = answer(&self.state, self.identity, &request.command, unknown, &envelopes);
        // The position of the events, which are not recorded, is that of another event later.
        let answer = Answer { meta: Meta::at(self.state.position()), ..answer };
        Ok(serde_json::to_vec(&answer).map_err(unavailable)?.into())
    }

    /// Adds headers to the decided events.
    fn envelopes(
        &self,
        request: &CommandRequest,
        events: Vec<Event>,
        time: Timestamp,
        event_id: &mut dyn FnMut() -> EventId,
    ) -> Vec<EventEnvelope> {
        let mut next = self.state.numbering();
        // The command's first event.
        let mut first = None;
        let mut envelopes = Vec::with_capacity(events.len());
        for event in events {
            let EventNumbers { position, decision_prev, stream_version } = next.number(&self.state, &event);
            let (causation_id, traceparent) = match request.cause.decision(&event) {
                Some(DecisionOrigin { event, traceparent }) => (Some(*event), traceparent),
                None => (first, &request.cause.traceparent),
            };
            let header = Header {
                cluster: self.identity.cluster,
                id: event_id(),
                position,
                decision_prev,
                epoch: self.identity.epoch,
                stream_version,
                time,
                actor: request.actor.clone(),
                correlation_id: request.correlation_id,
                causation_id,
                traceparent: traceparent.clone(),
            };
            first = first.or(Some(header.id));
            envelopes.push(EventEnvelope { header, event });
        }
        envelopes
    }

    /// Encodes the events. If one of them has no JSON form, or is too long, the command has no effect.
    fn entries(&self, envelopes: &[EventEnvelope]) -> Result<Vec<Entry>, Refusal> {
        let mut digest = self.digest;
        let mut entries = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            let body = envelope.encode().map_err(unavailable)?;
            if body.len() > ENTRY_MAX {
                return Err(Refusal::TooLong(body.len()));
            }
            let entry = Entry::new(envelope, body.into(), digest);
            digest = entry.digest;
            entries.push(entry);
        }
        Ok(entries)
    }
}

impl Staged {
    fn add(&mut self, entry: Entry, envelope: EventEnvelope) {
        self.batch.entries.push(entry);
        let event = &envelope.event;
        self.reported = self.reported.take().and_then(|reported| with_networks_of(reported, event));
        if Roster::is_changed_by(event) {
            self.membership.push(event.clone());
        }
        if Callers::is_changed_by(event) {
            self.callers.push(envelope);
        }
    }
}

/// Adds the networks that a report is on; none if the event is something else, or they are too many.
fn with_networks_of(mut reported: BTreeSet<NetworkId>, event: &Event) -> Option<BTreeSet<NetworkId>> {
    let Event::Node(NodeEvent::Reconciled(NodeReconciled { results, .. })) = event else { return None };
    for result in results {
        let ResourceRef::Network(id) = result.resource else { return None };
        reported.insert(id);
    }
    (reported.len() <= REPORTED_NETWORKS_MAX).then_some(reported)
}

fn unavailable(error: serde_json::Error) -> Refusal {
    Refusal::Unavailable(error.to_string())
}
