//! One round: a network is created, is `ready` on every node, and is deleted; or several are created one after the
//! other before all are deleted. Only the creation is timed.
//!
//! Times are measured by one client, which also subscribes to outcomes, in the namespace of the control plane.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::event::Event;
use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::network::{CreateNetwork, DeleteNetwork, NetworkById, NetworkDraft};
use otherix_schemas::node::{ListNodes, NodeEvent};
use otherix_schemas::outcome::{Outcome, OutcomeStatus, ResourceRef};
use otherix_schemas::request::PageRequest;
use otherix_schemas::subject;
use otherix_schemas::vm::{CreateVm, VmDraft};
use otherix_transport::request::CallOptions;
use otherix_transport::transport::Subscription;
use otherix_transport::{Connection, Nats, NatsEndpoint};

use crate::BenchError;

/// Time-out for an answer or an outcome.
const WITHIN: Duration = Duration::from_secs(20);

/// The bridge of every round; in a row, a number is appended.
const BRIDGE: &str = "br-bench";

/// A client that creates networks and receives their outcomes.
pub(crate) struct LabClient {
    connection: Connection,
    outcomes: Subscription,
    nodes: usize,
}

/// Duration of a creation and of its parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// From the request to its answer, when it is durable.
    pub(crate) acknowledged: Duration,
    /// From the answer to the first node's outcome.
    pub(crate) first: Duration,
    /// From then to the last node's outcome.
    pub(crate) last: Duration,
    /// From the request to the last node's outcome.
    pub(crate) ready: Duration,
}

impl LabClient {
    /// Connects and subscribes to outcomes.
    pub(crate) async fn new(endpoint: &NatsEndpoint, nodes: usize) -> Result<Self, BenchError> {
        let connection = Connection::from(Nats::once(endpoint, "otherix-bench", WITHIN).await?);
        let outcomes = connection.subscribe(subject::live(subject::OUTCOMES)).await?;
        let client = Self { connection, outcomes, nodes };
        client.subscribed().await?;
        Ok(client)
    }

    /// Waits until the server has processed earlier subscriptions: it processes a connection's messages in order.
    async fn subscribed(&self) -> Result<(), BenchError> {
        self.connection.call::<ListNodes>(&PageRequest::default(), options()).await?;
        Ok(())
    }

    /// Runs a round that is not counted, and returns the bytes of the event of its creation.
    pub(crate) async fn warm_up(&mut self) -> Result<Bytes, BenchError> {
        let mut decisions = self.connection.subscribe(subject::live(subject::DECISIONS)).await?;
        self.subscribed().await?;
        self.round().await?;
        let message = tokio::time::timeout(WITHIN, decisions.next()).await?;
        Ok(message.ok_or("the connection to NATS is closed")?.payload)
    }

    /// Creates a network, waits for every node, and deletes it again.
    pub(crate) async fn round(&mut self) -> Result<Round, BenchError> {
        let (id, round) = self.timed(BRIDGE).await?;
        self.delete(id).await?;
        Ok(round)
    }

    /// Creates networks, each as soon as the previous one is ready on every node, and then deletes them.
    pub(crate) async fn row(&mut self, count: u32) -> Result<Vec<Round>, BenchError> {
        let (mut ids, mut rounds) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (id, round) = self.timed(&format!("{BRIDGE}{number}")).await?;
            ids.push(id);
            rounds.push(round);
        }
        for id in ids {
            self.delete(id).await?;
        }
        Ok(rounds)
    }

    /// Creates a network that is kept, and waits for every node.
    pub(crate) async fn network(&mut self) -> Result<NetworkId, BenchError> {
        Ok(self.timed(BRIDGE).await?.0)
    }

    /// Creates a network, and waits for every node.
    async fn timed(&mut self, name: &str) -> Result<(NetworkId, Round), BenchError> {
        let begin = Instant::now();
        let id = self.create(name).await?;
        let acknowledged = begin.elapsed();
        let (first, ready) = self.everywhere(id, OutcomeStatus::Ready, begin).await?;
        let first_after = first.saturating_sub(acknowledged);
        Ok((id, Round { acknowledged, first: first_after, last: ready.saturating_sub(first), ready }))
    }

    async fn delete(&mut self, id: NetworkId) -> Result<(), BenchError> {
        let delete = NetworkById { id };
        self.connection.call::<DeleteNetwork>(&delete, options()).await?;
        self.everywhere(id, OutcomeStatus::Removed, Instant::now()).await?;
        Ok(())
    }

    async fn create(&self, name: &str) -> Result<NetworkId, BenchError> {
        let draft = NetworkDraft {
            name: name.to_owned(),
            bridge_name: Some(name.to_owned()),
            managed: Some(true),
            ..NetworkDraft::default()
        };
        Ok(self.connection.call::<CreateNetwork>(&draft, options()).await?.data.id)
    }

    /// Creates a VM with a NIC on the network.
    pub(crate) async fn vm(&self, number: u32, network: NetworkId) -> Result<NicId, BenchError> {
        let draft = VmDraft {
            name: format!("vm-{number}"),
            image_url: Some("https://images.example/vm.qcow2".to_owned()),
            arch: Some("amd64".to_owned()),
            network_id: Some(network.to_string()),
            ip: None,
            node_id: None,
            machine: None,
            ..VmDraft::default()
        };
        let created = self.connection.call::<CreateVm>(&draft, options()).await?;
        Ok(created.data.nic.ok_or("the VM has no NIC")?.id)
    }

    /// Waits until all of these NICs are reported `ready`.
    pub(crate) async fn ready(&mut self, mut nics: BTreeSet<NicId>) -> Result<(), BenchError> {
        while !nics.is_empty() {
            let message = tokio::time::timeout(WITHIN, self.outcomes.next()).await;
            let message = message.map_err(|_| format!("{} NICs have not been reported `ready`", nics.len()));
            let event = EventEnvelope::decode(&message?.ok_or("the connection to NATS is closed")?.payload)?.event;
            let Event::Node(NodeEvent::Reconciled(reconciled)) = event else { continue };
            for result in &reconciled.results {
                if let (ResourceRef::Nic(nic), Outcome::Ready) = (result.resource, &result.outcome) {
                    nics.remove(&nic);
                }
            }
        }
        Ok(())
    }

    /// Waits until every node has reported this status of the network; returns the times since `begin` of the first and
    /// the last report.
    async fn everywhere(
        &mut self,
        id: NetworkId,
        wanted: OutcomeStatus,
        begin: Instant,
    ) -> Result<(Duration, Duration), BenchError> {
        let (mut nodes, mut first) = (BTreeSet::new(), None);
        loop {
            let message = tokio::time::timeout(WITHIN, self.outcomes.next()).await;
            let message =
                message.map_err(|_| format!("only {} nodes have reported `{}`", nodes.len(), wanted.as_str()));
            let at = begin.elapsed();
            let event = EventEnvelope::decode(&message?.ok_or("the connection to NATS is closed")?.payload)?.event;
            let Event::Node(NodeEvent::Reconciled(reconciled)) = event else { continue };
            for result in reconciled.results.iter().filter(|result| result.resource == ResourceRef::Network(id)) {
                if let Outcome::Failed(reason) = &result.outcome {
                    return Err(format!("node `{}` has failed: {reason}", reconciled.node_id).into());
                }
                if result.outcome.status() == wanted {
                    nodes.insert(reconciled.node_id);
                    first.get_or_insert(at);
                }
            }
            if nodes.len() == self.nodes {
                return Ok((first.unwrap_or(at), at));
            }
        }
    }
}

fn options() -> CallOptions {
    CallOptions { timeout: WITHIN, idempotency_key: None }
}
