//! Metrics, health and the log of requests.

use std::sync::Arc;

use otherix_commands::relay::Relayed;
use otherix_commands::tlog::LogHandle;
use otherix_commands::writer::WriterMetrics;
use otherix_observe::endpoint::{self, Endpoint, ListenError, Measure, MetricsArgs};
use otherix_observe::prometheus::metrics::counter::Counter;
use otherix_observe::prometheus::metrics::family::Family;
use otherix_observe::prometheus::metrics::gauge::Gauge;
use otherix_observe::prometheus::metrics::histogram::Histogram;
use otherix_observe::prometheus::registry::Unit;
use otherix_observe::{durations, observe};
use otherix_projections::cluster::Totals;
use otherix_projections::read_models::ReadModels;
use otherix_projections::service::StreamPosition;
use otherix_runtime::LogLimit;
use otherix_schemas::cluster::{NetworkTotals, NodeTotals, VmTotals};
use otherix_schemas::position::Position;
use otherix_schemas::request::RequestKind;
use otherix_schemas::user::Callers;
use otherix_transport::Connection;
use otherix_transport::service::{RequestObserver, Served};
use tokio::sync::watch;

/// How many events the stream may be behind the journal before the control plane is not ready: some seconds of full
/// load.
const LAG_MAX: u64 = 10_000;

/// Requests by name and result.
#[derive(Clone, Debug)]
pub(crate) struct RequestMetrics {
    answered: Family<[(&'static str, &'static str); 2], Counter>,
    took: Family<[(&'static str, &'static str); 1], Histogram>,
}

impl RequestMetrics {
    pub(crate) fn new() -> Self {
        Self { answered: Family::default(), took: Family::new_with_constructor(durations) }
    }

    /// Counts requests, and logs those that are refused.
    pub(crate) fn observer(&self, callers: watch::Receiver<Callers>) -> RequestObserver {
        let metrics = self.clone();
        Arc::new(move |served| {
            metrics.count(served);
            log_refusal(served, &callers);
        })
    }

    fn count(&self, served: &Served<'_>) {
        let request = served.request.map_or("none", |request| request.name);
        let result = served.refusal.map_or("ok", |refusal| refusal.error.code.as_str());
        self.answered.get_or_create(&[("request", request), ("result", result)]).inc();
        observe(&self.took.get_or_create(&[("request", request)]), served.took);
    }
}

/// Logs which commands were refused to whom, at a bounded rate. Queries change nothing.
fn log_refusal(served: &Served<'_>, callers: &watch::Receiver<Callers>) {
    static REFUSED: LogLimit = LogLimit::new();
    let Served { request: Some(request), sender: Some(sender), refusal: Some(refusal), took } = served else { return };
    if !matches!(request.kind, RequestKind::Command(_)) {
        return;
    }
    let Some(count) = REFUSED.hit() else { return };
    let caller = callers.borrow().find(sender, None).map_or_else(|_| sender.to_string(), |caller| caller.name);
    let (request, code, us) = (request.name, refusal.error.code.as_str(), took.as_micros());
    tracing::info!(
        target: "otherix::requests", request, by = caller, code, reason = refusal.error.message, us, count, "refused"
    );
}

/// What is measured when somebody asks.
pub(crate) struct Sources {
    head: watch::Receiver<Position>,
    relayed: watch::Receiver<Relayed>,
    models: ReadModels,
    log: LogHandle,
    connection: Connection,
}

impl Sources {
    pub(crate) fn new(
        head: &watch::Receiver<Position>,
        relayed: &watch::Receiver<Relayed>,
        models: &ReadModels,
        log: &LogHandle,
        connection: &Connection,
    ) -> Self {
        let (head, relayed, models) = (head.clone(), relayed.clone(), models.clone());
        Self { head, relayed, models, log: log.clone(), connection: connection.clone() }
    }
}

/// Tells the last event that the stream has acknowledged.
pub(crate) fn stream_position(relayed: watch::Receiver<Relayed>) -> StreamPosition {
    Arc::new(move || relayed.borrow().position)
}

/// Listens for those who ask for metrics, if that is configured.
pub(crate) async fn listen(
    args: MetricsArgs,
    requests: &RequestMetrics,
    writer: &WriterMetrics,
    sources: Sources,
) -> Result<Option<Endpoint>, ListenError> {
    let Some(address) = args.metrics else { return Ok(None) };
    let mut registry = endpoint::registry();
    let RequestMetrics { answered, took } = requests.clone();
    registry.register("otherix_requests", "Requests that were answered, by result", answered);
    let help = "Time from the arrival of a request to its answer";
    registry.register_with_unit("otherix_request", help, Unit::Seconds, took);
    writer.register(&mut registry);
    let gauges = Gauges::default();
    let Gauges { positions, nodes, networks, on_nodes, vms } = gauges.clone();
    registry.register(
        "otherix_position",
        "The last event that the journal, the stream, the log or a read model has",
        positions,
    );
    registry.register(
        "otherix_nodes",
        "Nodes by state; one that is cordoned or has conditions is also counted so",
        nodes,
    );
    registry.register("otherix_networks", "Networks by state", networks);
    registry.register("otherix_networks_on_nodes", "Networks by what nodes report, once for each node", on_nodes);
    registry.register("otherix_vms", "VMs by state", vms);
    let sources = Arc::new(sources);
    let measure: Measure = Arc::new(move || {
        let (sources, gauges) = (Arc::clone(&sources), gauges.clone());
        Box::pin(async move { sources.measure(&gauges).await })
    });
    let endpoint = Endpoint::listen(address, registry, measure).await?;
    // With port 0 the kernel chooses one.
    let address = endpoint.address().unwrap_or(address);
    tracing::info!(%address, "metrics and health are served over HTTP");
    Ok(Some(endpoint))
}

type States = Family<[(&'static str, &'static str); 1], Gauge>;

#[derive(Clone, Debug, Default)]
struct Gauges {
    positions: States,
    nodes: States,
    networks: States,
    on_nodes: States,
    vms: States,
}

impl Sources {
    /// Sets the gauges. Returns what the control plane is not ready for.
    async fn measure(&self, gauges: &Gauges) -> Vec<String> {
        let Self { head, relayed, models, log, connection } = self;
        let mut missing = Vec::new();
        if !connection.is_connected() {
            missing.push("not connected to NATS".to_owned());
        }
        let (head, stream) = (*head.borrow(), relayed.borrow().position);
        let lag = head.get().saturating_sub(stream.get());
        if lag > LAG_MAX {
            missing.push(format!("the stream is {lag} events behind the journal"));
        }
        let set = |of: &'static str, position: Position| set(&gauges.positions, "of", of, position.get());
        set("journal", head);
        set("stream", stream);
        set("log", log.position());
        for (name, position, error) in models.positions() {
            set(name, position);
            missing.extend(error.map(|error| format!("the read model `{name}` has stopped: {error}")));
        }
        match models.totals().await {
            Ok(totals) => gauges.set(totals),
            Err(error) => missing.push(format!("the read models cannot be read: {}", error.error.message)),
        }
        missing
    }
}

impl Gauges {
    fn set(&self, totals: Totals) {
        let Totals { nodes, networks, vms } = totals;
        let NodeTotals { total: _, reachable, unreachable, cordoned, with_conditions } = nodes;
        let states = [
            ("reachable", reachable),
            ("unreachable", unreachable),
            ("cordoned", cordoned),
            ("with_conditions", with_conditions),
        ];
        states.into_iter().for_each(|(state, count)| set(&self.nodes, "state", state, count));
        let NetworkTotals { total, deleting, ready_on_nodes, pending_on_nodes, failed_on_nodes } = networks;
        for (state, count) in [("present", total), ("deleting", deleting)] {
            set(&self.networks, "state", state, count);
        }
        for (status, count) in [("ready", ready_on_nodes), ("pending", pending_on_nodes), ("failed", failed_on_nodes)] {
            set(&self.on_nodes, "status", status, count);
        }
        let VmTotals { total: _, running, paused, stopped, ready, pending, failed, deleting } = vms;
        let states = [
            ("running", running),
            ("paused", paused),
            ("stopped", stopped),
            ("ready", ready),
            ("pending", pending),
            ("failed", failed),
            ("deleting", deleting),
        ];
        states.into_iter().for_each(|(state, count)| set(&self.vms, "state", state, count));
    }
}

fn set(gauges: &States, label: &'static str, value: &'static str, count: u64) {
    gauges.get_or_create(&[(label, value)]).set(i64::try_from(count).unwrap_or(i64::MAX));
}
