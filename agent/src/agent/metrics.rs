//! What the agent tells of its work: metrics, and a line in its log for each failure and the end of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use otherix_observe::endpoint::{self, Endpoint, ListenError, Measure, MetricsArgs};
use otherix_observe::prometheus::metrics::counter::Counter;
use otherix_observe::prometheus::metrics::family::Family;
use otherix_observe::prometheus::metrics::gauge::Gauge;
use otherix_observe::prometheus::metrics::histogram::Histogram;
use otherix_observe::prometheus::registry::{Registry, Unit};
use otherix_observe::{durations, observe, service_manager};
use otherix_runtime::LogLimits;
use otherix_schemas::node::MeshPeerStatus;
use otherix_schemas::outcome::{Outcome, OutcomeStatus, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_transport::Connection;
use tokio::sync::watch;

use crate::control::SharedState;
use crate::ledger::Ledger;

type Resources = Family<[(&'static str, &'static str); 2], Gauge>;

/// The metrics of the agent. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct AgentMetrics {
    passes: Histogram,
    failed_passes: Counter,
    resources: Resources,
    positions: Family<[(&'static str, &'static str); 1], Gauge>,
    connected: Gauge,
    mesh_peers: Gauge,
    mesh_handshakes: Gauge,
    mesh_bytes: Family<[(&'static str, &'static str); 1], Gauge>,
}

/// Outcomes as they are known, and when failures were logged.
pub(super) struct OutcomeLog {
    metrics: AgentMetrics,
    statuses: BTreeMap<ResourceRef, OutcomeStatus>,
    failures: BTreeMap<ResourceRef, String>,
    log: LogLimits<ResourceRef>,
    is_ready: bool,
}

/// What is measured when somebody asks.
pub(super) struct Sources {
    pub(super) connection: Connection,
    pub(super) shared: SharedState,
    pub(super) peers: watch::Receiver<Vec<MeshPeerStatus>>,
}

impl OutcomeLog {
    pub(super) fn new(metrics: AgentMetrics) -> Self {
        Self {
            metrics,
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
            log: LogLimits::default(),
            is_ready: false,
        }
    }

    /// Tells the service manager, once, that the agent does what it can do.
    pub(super) fn ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            service_manager::ready("running");
        }
    }

    /// A pass took so long, and failed or not.
    pub(super) fn passed(&self, took: Duration, is_failed: bool) {
        observe(&self.metrics.passes, took);
        if is_failed {
            self.metrics.failed_passes.inc();
        }
    }

    /// An outcome, which may be that which is known.
    pub(super) fn observe(&mut self, outcome: &ResourceOutcome, ledger: Option<&Ledger>) {
        let (resource, status) = (outcome.resource, outcome.outcome.status());
        let known = match status {
            OutcomeStatus::Removed => self.statuses.remove(&resource),
            OutcomeStatus::Pending | OutcomeStatus::Ready | OutcomeStatus::Failed => {
                self.statuses.insert(resource, status)
            }
        };
        // Each pass brings all outcomes, of which few are new.
        if known != Some(status) {
            self.count(resource, known, status);
        }
        self.log(outcome, ledger);
    }

    fn count(&self, resource: ResourceRef, known: Option<OutcomeStatus>, status: OutcomeStatus) {
        let of = |status: OutcomeStatus| {
            self.metrics.resources.get_or_create(&[("kind", kind(resource)), ("status", status.as_str())])
        };
        if let Some(known) = known {
            of(known).dec();
        }
        if status != OutcomeStatus::Removed {
            of(status).inc();
        }
    }

    fn log(&mut self, outcome: &ResourceOutcome, ledger: Option<&Ledger>) {
        let resource = outcome.resource;
        let named = |id: ResourceRef| name(id, ledger);
        if let Outcome::Failed(error) = &outcome.outcome {
            let is_new = self.failures.get(&resource) != Some(error);
            if is_new && let Some(count) = self.log.hit(resource) {
                tracing::warn!(kind = kind(resource), name = named(resource), error, count, "failed");
            }
            self.failures.insert(resource, error.clone());
        } else if self.failures.remove(&resource).is_some()
            && let Some(count) = self.log.hit(resource)
        {
            let status = outcome.outcome.status().as_str();
            tracing::info!(kind = kind(resource), name = named(resource), status, count, "no longer failed");
        }
    }
}

fn kind(resource: ResourceRef) -> &'static str {
    match resource {
        ResourceRef::Network(_) => "network",
        ResourceRef::Nic(_) => "nic",
        ResourceRef::Vm(_) => "vm",
    }
}

/// The name of a network or VM, or what there is instead.
fn name(resource: ResourceRef, ledger: Option<&Ledger>) -> String {
    let view = ledger.map(Ledger::view);
    let found = match resource {
        ResourceRef::Network(id) => view.and_then(|view| Some(view.network(id)?.name.to_string())),
        ResourceRef::Vm(id) => view.and_then(|view| Some(view.names().get(&id)?.to_string())),
        ResourceRef::Nic(_) => None,
    };
    found.unwrap_or_else(|| resource.to_string())
}

impl AgentMetrics {
    pub(super) fn new() -> Self {
        Self {
            passes: durations(),
            failed_passes: Counter::default(),
            resources: Family::default(),
            positions: Family::default(),
            connected: Gauge::default(),
            mesh_peers: Gauge::default(),
            mesh_handshakes: Gauge::default(),
            mesh_bytes: Family::default(),
        }
    }

    fn register(&self, registry: &mut Registry) {
        let Self { passes, failed_passes, resources, positions, connected, mesh_peers, mesh_handshakes, mesh_bytes } =
            self.clone();
        let help = "Time that a comparison of the kernel with the decisions takes, repairs included";
        registry.register_with_unit("otherix_agent_pass", help, Unit::Seconds, passes);
        registry.register("otherix_agent_failed_passes", "Comparisons that the kernel did not permit", failed_passes);
        registry.register("otherix_agent_resources", "Networks, NICs and VMs of this node by status", resources);
        let help = "The last decision that the node has carried out, and that the control plane has told of";
        registry.register("otherix_agent_position", help, positions);
        registry.register("otherix_agent_connected", "Whether the node is connected to NATS", connected);
        registry.register("otherix_agent_mesh_peers", "Peers in the mesh", mesh_peers);
        let help = "Peers in the mesh with which there was a handshake";
        registry.register("otherix_agent_mesh_peers_with_handshake", help, mesh_handshakes);
        let help = "Bytes to and from the present peers in the mesh since its device was created";
        registry.register("otherix_agent_mesh_bytes", help, mesh_bytes);
    }

    /// Answers those who ask, if that is configured. The node's networks do not depend on whether it can.
    pub(super) async fn serve(self, args: MetricsArgs, sources: Sources) {
        match self.listen(args, sources).await {
            Ok(Some(endpoint)) => endpoint.run().await,
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "nobody can read the metrics until the agent is restarted"),
        }
    }

    async fn listen(&self, args: MetricsArgs, sources: Sources) -> Result<Option<Endpoint>, ListenError> {
        let Some(address) = args.metrics else { return Ok(None) };
        let mut registry = endpoint::registry();
        self.register(&mut registry);
        let (metrics, sources) = (self.clone(), Arc::new(sources));
        let measure: Measure = Arc::new(move || {
            let missing = metrics.measure(&sources);
            Box::pin(std::future::ready(missing))
        });
        Endpoint::listen(address, registry, measure).await.map(Some)
    }

    /// Sets the gauges. Returns what the node is not ready for.
    fn measure(&self, sources: &Sources) -> Vec<String> {
        let Sources { connection, shared, peers } = sources;
        let mut missing = Vec::new();
        let is_connected = connection.is_connected();
        self.connected.set(i64::from(is_connected));
        if !is_connected {
            missing.push("not connected to NATS".to_owned());
        }
        let (position, head) = (*shared.position.borrow(), *shared.head.borrow());
        for (of, position) in [("node", position), ("control_plane", head)] {
            self.positions.get_or_create(&[("of", of)]).set(number(position.get()));
        }
        if position < head {
            missing.push(format!("the node has decisions up to position {position}, of {head}"));
        }
        if position == Position::ZERO && head == Position::ZERO {
            missing.push("the node has no decisions yet".to_owned());
        }
        let peers = peers.borrow();
        let with_handshake = peers.iter().filter(|peer| peer.last_handshake_at.is_some()).count();
        self.mesh_peers.set(number(peers.len() as u64));
        self.mesh_handshakes.set(number(with_handshake as u64));
        let (received, sent) = peers.iter().fold((0u64, 0u64), |(received, sent), peer| {
            (received.saturating_add(peer.rx_bytes), sent.saturating_add(peer.tx_bytes))
        });
        for (direction, bytes) in [("received", received), ("sent", sent)] {
            self.mesh_bytes.get_or_create(&[("direction", direction)]).set(number(bytes));
        }
        missing
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use otherix_schemas::id::NetworkId;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn resources_are_counted_by_their_latest_status() {
        let metrics = AgentMetrics::new();
        let mut log = OutcomeLog::new(metrics.clone());
        let network = |number| ResourceRef::Network(NetworkId::new(Uuid::from_u128(number)));
        let outcome = |number, outcome| ResourceOutcome::new(network(number), Position::new(1), outcome);
        let failed = || Outcome::Failed("lo is already there".to_owned());
        for (number, next) in [
            (1, Outcome::Ready),
            (2, failed()),
            (2, failed()),
            (3, failed()),
            (2, Outcome::Ready),
            (1, Outcome::Removed),
        ] {
            log.observe(&outcome(number, next), None);
        }
        let count = |status| metrics.resources.get_or_create(&[("kind", "network"), ("status", status)]).get();
        assert_eq!((count("ready"), count("failed"), count("pending")), (1, 1, 0));
        assert_eq!(log.failures.len(), 1);
    }
}
