//! A simulated control plane: it publishes the decisions of a test, answers nodes, and keeps their requests.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
#![allow(dead_code, reason = "not every test file uses all of it")]

mod answers;
pub(crate) mod decisions;
pub(crate) mod enrollment;
pub(crate) mod program;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Client, ConnectOptions, HeaderMap};
use futures::StreamExt;
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::cluster::{ClusterEvent, ClusterRestored};
use otherix_schemas::decision_chain::{DecisionSigner, KeyRotation};
use otherix_schemas::event::Event;
use otherix_schemas::id::{ClusterId, CorrelationId, EventId, NetworkId, NodeId};
use otherix_schemas::node::{NodeReport, ReportNumber};
use otherix_schemas::outcome::{Outcome, ResourceRef};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::subject;
use otherix_schemas::timestamp::Timestamp;
use otherix_testkit::wait::wait_for;
use uuid::Uuid;

use self::answers::{refusal, stream};

/// The seed of the key that signs the decisions.
pub(crate) const DECISION_SEED: [u8; 32] = [1; 32];

/// What the control plane answers, and what nodes have sent.
pub(crate) struct ControlState {
    pub(crate) cluster: ClusterId,
    pub(crate) epoch: Epoch,
    /// The position of the last decision.
    pub(crate) head: Position,
    /// The position of the last event.
    pub(crate) last: Position,
    /// The published events: subject and bytes.
    pub(crate) published: Vec<(String, Vec<u8>)>,
    /// The error with which it refuses to let nodes join.
    pub(crate) refusal: Option<&'static str>,
    /// It refuses all requests because the node was removed.
    pub(crate) refuses_removed: bool,
    /// The node ids of all join requests.
    pub(crate) joins: Vec<NodeId>,
    /// The users that have sent heartbeats, by their subjects.
    pub(crate) senders: Vec<String>,
    /// The reports in the order of their arrival, with repeated ones.
    pub(crate) reports: Vec<NodeReport>,
    /// The positions of the heartbeats.
    pub(crate) heartbeats: Vec<Position>,
    /// What the last heartbeat told of an older copy of the agent's state.
    pub(crate) set_back: Option<String>,
    /// What the last heartbeat told of the ledger: as the agent was started, and on disk.
    pub(crate) ledger: Option<(Position, Position)>,
    /// The number of next reports that are not answered.
    pub(crate) ignore_reports: usize,
    /// The last report that is recorded: the same and earlier ones are outdated.
    pub(crate) recorded: Option<ReportNumber>,
    /// The incarnation of another agent, which it tells in answers to heartbeats.
    pub(crate) other_agent: Option<u64>,
    /// What the decisions are signed with.
    pub(crate) signer: DecisionSigner,
    pub(crate) key_rotations: Vec<KeyRotation>,
    /// What queries are answered with in place of the published events, as if somebody in between altered the answers.
    pub(crate) served: Option<Vec<(String, Vec<u8>)>>,
    /// How often a node has asked for events.
    pub(crate) reads: usize,
}

/// A simulated control plane.
pub(crate) struct Control {
    pub(crate) client: Client,
    state: Arc<Mutex<ControlState>>,
}

impl Control {
    /// Connects, creates the stream unless it exists, and starts to answer requests.
    pub(crate) async fn start(url: &str) -> Self {
        Self::start_with(url, ConnectOptions::new()).await
    }

    /// As [`Control::start`], on a server that wants to know who connects.
    pub(crate) async fn start_with(url: &str, options: ConnectOptions) -> Self {
        let client = options.connect(url).await.unwrap();
        let state = ControlState {
            cluster: ClusterId::new(Uuid::from_u128(1)),
            epoch: Epoch::FIRST,
            head: Position::ZERO,
            last: Position::ZERO,
            published: Vec::new(),
            refusal: None,
            refuses_removed: false,
            joins: Vec::new(),
            senders: Vec::new(),
            reports: Vec::new(),
            heartbeats: Vec::new(),
            set_back: None,
            ledger: None,
            ignore_reports: 0,
            recorded: None,
            other_agent: None,
            signer: DecisionSigner::from_seed(&DECISION_SEED),
            key_rotations: Vec::new(),
            served: None,
            reads: 0,
        };
        let control = Self { client, state: Arc::new(Mutex::new(state)) };
        control.context().get_or_create_stream(stream(true)).await.unwrap();
        control.answer().await;
        control
    }

    fn context(&self) -> jetstream::Context {
        jetstream::new(self.client.clone())
    }

    /// Sets whether the stream republishes events to live subscribers.
    pub(crate) async fn republish(&self, republish: bool) {
        self.context().update_stream(stream(republish)).await.unwrap();
    }

    /// Creates the stream again with the first `kept` of its events.
    pub(crate) async fn recreate_stream(&self, kept: usize) {
        self.context().delete_stream(subject::STREAM).await.unwrap();
        // The server may still be removing the old stream's folder.
        let created = async || self.context().create_stream(stream(false)).await.is_ok();
        wait_for(Duration::from_secs(20), "the new stream", created).await;
        let mut events = {
            let mut state = self.state();
            (state.head, state.last) = (Position::ZERO, Position::ZERO);
            std::mem::take(&mut state.published)
        };
        events.truncate(kept);
        self.publish_all(events).await;
        self.republish(true).await;
    }

    /// Begins a new epoch after the first `kept` events; positions up to `highest` are a gap.
    pub(crate) async fn restore(&self, kept: usize, highest: u64) {
        self.recreate_stream(kept).await;
        let filler = (self.state().last.get()..highest).map(|_| ("otherix.out.v1.filler".to_owned(), Vec::new()));
        self.publish_all(filler.collect()).await;
        {
            let mut state = self.state();
            state.epoch = Epoch::new(state.epoch.get() + 1);
        }
        let restored = ClusterRestored {
            cluster_id: self.cluster(),
            kept: Position::new(kept as u64),
            highest_position: Position::new(highest),
            highest_vni: None,
            highest_mesh_address: None,
            mesh_addresses_left_out: 0,
        };
        self.decide(Event::Cluster(ClusterEvent::Restored(restored))).await;
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.state().cluster
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, ControlState> {
        self.state.lock().unwrap()
    }

    /// Starts a task that answers joins, reports and heartbeats.
    async fn answer(&self) {
        let mut joins = self.client.subscribe("otherix.req.v1.*.node.join").await.unwrap();
        let mut reports = self.client.subscribe("otherix.req.v1.*.node.report").await.unwrap();
        let mut heartbeats = self.client.subscribe("otherix.hb.v1.*").await.unwrap();
        let mut queries = self.client.subscribe("otherix.req.v1.*.event.list").await.unwrap();
        self.client.flush().await.unwrap();
        let (client, state) = (self.client.clone(), Arc::clone(&self.state));
        tokio::spawn(async move {
            loop {
                let (message, answer) = tokio::select! {
                    Some(message) = joins.next() => {
                        let answer = state.lock().unwrap().join(&message.payload);
                        (message, Some(answer))
                    }
                    Some(message) = reports.next() => {
                        let answer = state.lock().unwrap().report(&message.payload);
                        (message, answer)
                    }
                    Some(message) = heartbeats.next() => {
                        let answer = state.lock().unwrap().heartbeat(&message.subject, &message.payload);
                        (message, Some(answer))
                    }
                    Some(message) = queries.next() => {
                        let answer = state.lock().unwrap().events(&message.payload);
                        (message, Some(Ok(answer)))
                    }
                    else => return,
                };
                let reply = message.reply.unwrap();
                match answer {
                    Some(Ok(body)) => client.publish(reply, body.into()).await.unwrap(),
                    Some(Err(error)) => {
                        let (headers, body) = refusal(&error);
                        client.publish_with_headers(reply, headers, body.into()).await.unwrap();
                    }
                    None => {}
                }
            }
        });
    }

    /// Publishes a decision.
    pub(crate) async fn decide(&self, event: Event) {
        let subject = subject::event(&event);
        let envelope = self.record(event);
        self.publish(subject, envelope.encode().unwrap()).await;
    }

    /// Returns the envelope of the next decision, without publishing it.
    pub(crate) fn record(&self, event: Event) -> EventEnvelope {
        let ControlState { cluster, epoch, head, last, .. } = *self.state();
        EventEnvelope {
            header: Header {
                cluster,
                id: EventId::new(Uuid::now_v7()),
                position: last.next(),
                decision_prev: head,
                epoch,
                stream_version: 1,
                time: Timestamp::from_unix_micros(1).unwrap(),
                actor: "admin".parse().unwrap(),
                correlation_id: CorrelationId::new(Uuid::nil()),
                causation_id: None,
                traceparent: None,
            },
            event,
        }
    }

    /// Waits until a restarted server has loaded the stream, which happens after it accepts connections.
    pub(crate) async fn wait_for_stream(&self) {
        let context = self.context();
        wait_for(Duration::from_secs(20), "the stream", async || context.get_stream(subject::STREAM).await.is_ok())
            .await;
    }

    /// Publishes bytes as the next decision.
    pub(crate) async fn publish(&self, subject: String, bytes: Vec<u8>) {
        self.publish_all(vec![(subject, bytes)]).await;
    }

    /// Publishes events in order. Those with a subject of decisions set the decision head.
    pub(crate) async fn publish_all(&self, events: Vec<(String, Vec<u8>)>) {
        let context = self.context();
        for events in events.chunks(500) {
            let mut acknowledgements = Vec::new();
            for (subject, bytes) in events {
                let sent = context.publish_with_headers(subject.clone(), HeaderMap::new(), bytes.clone().into()).await;
                acknowledgements.push(sent.unwrap());
            }
            for (acknowledgement, event) in acknowledgements.into_iter().zip(events) {
                let sequence = Position::new(acknowledgement.await.unwrap().sequence);
                let mut state = self.state();
                state.last = sequence;
                if event.0.starts_with("otherix.evt.") {
                    state.head = sequence;
                }
                state.published.push(event.clone());
            }
        }
    }

    /// Publishes many decisions at once.
    pub(crate) async fn decide_all(&self, events: Vec<Event>) {
        let ControlState { last: mut position, mut head, .. } = *self.state();
        let mut bytes = Vec::new();
        for event in events {
            let subject = subject::event(&event);
            let mut envelope = self.record(event);
            position = position.next();
            (envelope.header.position, envelope.header.decision_prev) = (position, head);
            head = position;
            bytes.push((subject, envelope.encode().unwrap()));
        }
        self.publish_all(bytes).await;
    }

    /// Returns the generation and the outcome that were last reported of a network.
    pub(crate) fn outcome(&self, id: NetworkId) -> Option<(Position, Outcome)> {
        let state = self.state();
        let mut outcomes = state.reports.iter().rev().flat_map(|report| &report.results);
        outcomes
            .find(|outcome| outcome.resource == ResourceRef::Network(id))
            .map(|outcome| (outcome.generation, outcome.outcome.clone()))
    }
}
