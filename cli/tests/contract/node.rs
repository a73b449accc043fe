//! Nodes that the tests speak for, and runs of the program meanwhile.

use std::time::Duration;

use otherix_schemas::id::{NetworkId, NicId, NodeId};
use otherix_schemas::node::{Heartbeat, JoinNode, JoinRequest, MeshOffer, MeshPeerStatus, NodeReport, ReportNode};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::request::Request;
use otherix_schemas::subject;
use otherix_transport::Nats;
use otherix_transport::request::CallOptions;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::plane::Plane;

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A node that the test speaks for.
pub(crate) struct Node {
    connection: Nats,
    id: NodeId,
    reports: u64,
    beats: Option<JoinHandle<()>>,
}

impl Node {
    /// Joins as `node-` and the number.
    pub(crate) async fn join(plane: &Plane, number: u128) -> Self {
        Self::join_with(plane, number, &format!("node-{number}"), None).await
    }

    /// The same with a place in the mesh; the key consists of the number.
    pub(crate) async fn join_mesh(plane: &Plane, number: u8) -> Self {
        Self::join_mesh_as(plane, number, &format!("node-{number}")).await
    }

    /// The same under another name.
    pub(crate) async fn join_mesh_as(plane: &Plane, number: u8, name: &str) -> Self {
        let endpoint = format!("192.0.2.{number}:51820").parse().expect("an endpoint");
        let mesh = MeshOffer { public_key: [number; 32].try_into().expect("a key"), endpoint };
        Self::join_with(plane, number.into(), name, Some(mesh)).await
    }

    async fn join_with(plane: &Plane, number: u128, name: &str, mesh: Option<MeshOffer>) -> Self {
        let connection = plane.connect("node").await;
        let id = NodeId::new(Uuid::from_u128(number));
        let name = name.parse().expect("a name");
        let node = Self { connection, id, reports: 0, beats: None };
        node.ask(Request::of::<JoinNode>(), &JoinRequest { node_id: id, name, mesh }).await;
        node
    }

    /// From now on it gives signs of life.
    pub(crate) fn beats(mut self) -> Self {
        let (client, subject) = (self.connection.client().clone(), subject::heartbeat(self.id));
        let body = serde_json::to_vec(&Heartbeat { position: Position::ZERO, mesh: Vec::new() }).expect("JSON");
        self.beats = Some(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            loop {
                ticks.tick().await;
                client.publish(subject.clone(), body.clone().into()).await.expect("connected");
            }
        }));
        self
    }

    /// Gives one sign of life, with this of its peers.
    pub(crate) async fn says_of_peers(&self, mesh: Vec<MeshPeerStatus>) {
        let beat = Heartbeat { position: Position::ZERO, mesh };
        let options = CallOptions { timeout: DEADLINE, idempotency_key: None };
        self.connection.exchange(subject::heartbeat(self.id), &beat, options).await.expect("an answer");
    }

    /// How a network fares.
    pub(crate) async fn report(&mut self, view: &Value, outcome: Outcome) {
        let network_id: NetworkId = serde_json::from_value(view["id"].clone()).expect("an id");
        self.say(ResourceRef::Network(network_id), &view["generation"], outcome).await;
    }

    /// How a VM's NIC fares.
    pub(crate) async fn report_nic(&mut self, vm: &Value, outcome: Outcome) {
        let nic_id: NicId = serde_json::from_value(vm["nic"]["id"].clone()).expect("an id");
        self.say(ResourceRef::Nic(nic_id), &vm["nic"]["generation"], outcome).await;
    }

    async fn say(&mut self, resource: ResourceRef, generation: &Value, outcome: Outcome) {
        self.reports += 1;
        let generation: Position = serde_json::from_value(generation.clone()).expect("a position");
        let results = vec![ResourceOutcome::new(resource, generation, outcome)];
        let report = NodeReport { node_id: self.id, incarnation: 1, sequence: self.reports, results };
        self.ask(Request::of::<ReportNode>(), &report).await;
    }

    async fn ask(&self, request: Request, body: &(impl Serialize + Sync)) {
        let options = CallOptions { timeout: DEADLINE, idempotency_key: None };
        self.connection.call_untyped::<_, Value>(request, body, options).await.expect("it may");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(beats) = self.beats.take() {
            beats.abort();
        }
    }
}

/// Starts the program.
pub(crate) fn start(plane: &Plane, line: &str) -> JoinHandle<Run> {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let mut command = tokio::process::Command::from(plane.command(&words));
    tokio::spawn(async move {
        let output = command.output().await.expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    })
}

/// Runs the program.
pub(crate) async fn run(plane: &Plane, line: &str) -> Run {
    start(plane, line).await.expect("no panic")
}

/// How it ended, and all of stderr.
#[track_caller]
pub(crate) fn is(run: &Run, code: i32, stderr: &str) {
    assert_eq!((run.code, run.stderr.as_str()), (Some(code), stderr), "{run:?}");
}
