//! A control plane that only listens: it publishes the decisions that a test makes, answers nodes, and keeps what they said.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::sync::{Arc, Mutex, MutexGuard};

use async_nats::jetstream::{self, stream};
use async_nats::{Client, HeaderMap};
use futures::StreamExt;
use otherix_schemas::cloudevent::{Header, Recorded};
use otherix_schemas::event::{Event, NetworkCreated, NetworkDeleted};
use otherix_schemas::id::{ClusterId, CorrelationId, EventId, NetworkId};
use otherix_schemas::network::{BridgeSpec, Egress, NetworkSpec, Ownership};
use otherix_schemas::outcome::{NodeReport, Outcome, ReportReceipt};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::request::{Answer, Heartbeat, HeartbeatReply, Joined, Meta};
use otherix_schemas::subject;
use otherix_schemas::timestamp::Timestamp;
use serde::Serialize;
use uuid::Uuid;

/// What nodes said, and what they are told.
#[derive(Default)]
pub(crate) struct Heard {
    /// The last decision.
    pub(crate) head: Position,
    /// Reports in the order of their arrival, repeated ones too.
    pub(crate) reports: Vec<NodeReport>,
    /// The positions in the signs of life.
    pub(crate) heartbeats: Vec<Position>,
    /// So many reports are not answered.
    pub(crate) ignore_reports: usize,
}

/// The control plane.
pub(crate) struct Control {
    pub(crate) client: Client,
    pub(crate) cluster: ClusterId,
    heard: Arc<Mutex<Heard>>,
}

impl Control {
    /// Connects, makes the stream unless it is there, and begins to answer.
    pub(crate) async fn start(url: &str) -> Self {
        let client = async_nats::connect(url).await.unwrap();
        let stream = stream::Config {
            name: subject::STREAM.into(),
            subjects: subject::STREAM_SUBJECTS.map(str::to_owned).to_vec(),
            republish: Some(stream::Republish {
                source: ">".into(),
                destination: subject::live(">"),
                headers_only: false,
            }),
            ..stream::Config::default()
        };
        jetstream::new(client.clone()).get_or_create_stream(stream).await.unwrap();
        let control =
            Self { client, cluster: ClusterId::new(Uuid::from_u128(1)), heard: Arc::new(Mutex::new(Heard::default())) };
        control.answer().await;
        control
    }

    pub(crate) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap()
    }

    async fn answer(&self) {
        let mut requests = self.client.subscribe("otherix.req.v1.*.node.*").await.unwrap();
        let mut heartbeats = self.client.subscribe("otherix.hb.v1.*").await.unwrap();
        self.client.flush().await.unwrap();
        let (client, heard, cluster) = (self.client.clone(), Arc::clone(&self.heard), self.cluster);
        tokio::spawn(async move {
            loop {
                let (reply, body) = tokio::select! {
                    Some(message) = requests.next() => {
                        let body = if message.subject.ends_with("join") {
                            let decision_head = heard.lock().unwrap().head;
                            json(&answer(Joined { cluster, epoch: serde_json::from_str::<Epoch>("1").unwrap(), decision_head }))
                        } else {
                            let mut heard = heard.lock().unwrap();
                            heard.reports.push(serde_json::from_slice(&message.payload).unwrap());
                            if heard.ignore_reports > 0 {
                                heard.ignore_reports -= 1;
                                continue;
                            }
                            json(&answer(ReportReceipt { unknown: Vec::new() }))
                        };
                        (message.reply, body)
                    }
                    Some(message) = heartbeats.next() => {
                        let mut heard = heard.lock().unwrap();
                        heard.heartbeats.push(serde_json::from_slice::<Heartbeat>(&message.payload).unwrap().position);
                        (message.reply, json(&HeartbeatReply { decision_head: heard.head }))
                    }
                    else => return,
                };
                client.publish(reply.unwrap(), body.into()).await.unwrap();
            }
        });
    }

    /// Publishes a decision.
    pub(crate) async fn decide(&self, event: Event) {
        let subject = subject::event(&event);
        let recorded = self.record(event);
        self.publish(subject, recorded.encode().unwrap()).await;
    }

    /// The next decision, with all that goes with it.
    pub(crate) fn record(&self, event: Event) -> Recorded {
        let head = self.heard().head;
        Recorded {
            header: Header {
                cluster: self.cluster,
                id: EventId::new(Uuid::now_v7()),
                position: head.next(),
                decision_prev: head,
                epoch: serde_json::from_str("1").unwrap(),
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

    /// Publishes bytes as the next decision.
    pub(crate) async fn publish(&self, subject: String, bytes: Vec<u8>) {
        let context = jetstream::new(self.client.clone());
        let acknowledged =
            context.publish_with_headers(subject, HeaderMap::new(), bytes.into()).await.unwrap().await.unwrap();
        self.heard().head = Position::new(acknowledged.sequence);
    }

    /// The last outcome that was reported of a network, with its generation.
    pub(crate) fn outcome(&self, id: NetworkId) -> Option<(Position, Outcome)> {
        let heard = self.heard();
        let mut all = heard.reports.iter().rev().flat_map(|report| &report.results);
        all.find(|outcome| outcome.network_id == id).map(|outcome| (outcome.generation, outcome.outcome.clone()))
    }
}

fn answer<Data>(data: Data) -> Answer<Data> {
    Answer { data, meta: Meta::at(Position::ZERO) }
}

fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap()
}

/// A network with a managed bridge.
pub(crate) fn created(network_id: NetworkId, bridge: &str, vlan: Option<i64>) -> Event {
    let spec = NetworkSpec::Bridge(BridgeSpec {
        bridge_name: bridge.parse().unwrap(),
        ownership: Ownership::Managed(Egress::None),
        mtu: 1400.try_into().unwrap(),
        vlan: vlan.map(|number| number.try_into().unwrap()),
    });
    Event::NetworkCreated(NetworkCreated { network_id, name: bridge.parse().unwrap(), spec })
}

/// The end of a network.
pub(crate) fn deleted(network_id: NetworkId) -> Event {
    Event::NetworkDeleted(NetworkDeleted { network_id, name: "net".parse().unwrap() })
}
