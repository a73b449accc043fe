//! Nodes simulated by the tests, and runs of the program.

use std::time::Duration;

use otherix_identity::{Creds, JoinToken, KeyKind, KeyPair};
use otherix_schemas::enrollment::{EnrollNode, GetEnrolledNode, NewNodeKey, NodeToEnroll};
use otherix_schemas::id::{NetworkId, NicId, NodeId};
use otherix_schemas::node::{
    CapacityReport, Heartbeat, JoinNode, JoinRequest, MeshOffer, MeshPeerStatus, NodeAccelerator, NodeCapacity,
    NodeReport, ReportCapacity, ReportNode, Resources,
};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::request::Request;
use otherix_schemas::subject;
use otherix_schemas::value::UserKey;
use otherix_transport::Nats;
use otherix_transport::request::CallOptions;
use otherix_transport::transport::Message;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::control_plane::ControlPlane;

/// Time limit of every wait.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The result of a run.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A simulated node.
pub(crate) struct SimulatedNode {
    connection: Nats,
    id: NodeId,
    reports: u64,
    heartbeats: Option<JoinHandle<()>>,
}

impl SimulatedNode {
    /// Joins as `node-<number>`.
    pub(crate) async fn join(control_plane: &ControlPlane, number: u128) -> Self {
        Self::join_with(control_plane, number, &format!("node-{number}"), None).await
    }

    /// Joins as `node-<number>` in the mesh; every byte of its key is the number.
    pub(crate) async fn join_mesh(control_plane: &ControlPlane, number: u8) -> Self {
        Self::join_mesh_as(control_plane, number, &format!("node-{number}")).await
    }

    /// Joins in the mesh under another name.
    pub(crate) async fn join_mesh_as(control_plane: &ControlPlane, number: u8, name: &str) -> Self {
        let endpoint = format!("192.0.2.{number}:51820").parse().expect("an endpoint");
        let mesh = MeshOffer { public_key: [number; 32].try_into().expect("a key"), endpoint };
        Self::join_with(control_plane, number.into(), name, Some(mesh)).await
    }

    async fn join_with(control_plane: &ControlPlane, number: u128, name: &str, mesh: Option<MeshOffer>) -> Self {
        let id = NodeId::new(Uuid::from_u128(number));
        let connection = enroll(control_plane, id, name).await;
        let name = name.parse().expect("a name");
        let node = Self { connection, id, reports: 0, heartbeats: None };
        node.call(Request::of::<JoinNode>(), &JoinRequest { node_id: id, name, mesh, arch: None }).await;
        node
    }

    /// Reports what the node offers to machines of VMs.
    pub(crate) async fn offer(&self, resources: Resources) {
        let accelerator = Some(NodeAccelerator::Tcg);
        let capacity = NodeCapacity { accelerator, reason: "configured".to_owned(), resources };
        let report = CapacityReport { node_id: self.id, capacity };
        self.call(Request::of::<ReportCapacity>(), &report).await;
    }

    /// Sends heartbeats from now on.
    pub(crate) fn with_heartbeats(mut self) -> Self {
        let (connection, subject) = (self.connection.connection(), subject::heartbeat(&self.connection.user()));
        let body = serde_json::to_vec(&Heartbeat::default()).expect("JSON");
        self.heartbeats = Some(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            loop {
                ticks.tick().await;
                connection.publish(Message::new(subject.clone(), body.clone())).await.expect("connected");
            }
        }));
        self
    }

    /// Sends one heartbeat with this state of its peers.
    pub(crate) async fn send_heartbeat(&self, mesh: Vec<MeshPeerStatus>) {
        let heartbeat = Heartbeat { mesh, ..Heartbeat::default() };
        let options = CallOptions { timeout: DEADLINE, idempotency_key: None };
        self.connection
            .exchange(subject::heartbeat(&self.connection.user()), &heartbeat, options)
            .await
            .expect("an answer");
    }

    /// Reports the status of a network.
    pub(crate) async fn report(&mut self, view: &Value, outcome: Outcome) {
        let network_id: NetworkId = serde_json::from_value(view["id"].clone()).expect("an id");
        self.send_report(ResourceRef::Network(network_id), &view["generation"], outcome).await;
    }

    /// Reports the status of a VM's NIC.
    pub(crate) async fn report_nic(&mut self, vm: &Value, outcome: Outcome) {
        let nic_id: NicId = serde_json::from_value(vm["nic"]["id"].clone()).expect("an id");
        self.send_report(ResourceRef::Nic(nic_id), &vm["nic"]["generation"], outcome).await;
    }

    async fn send_report(&mut self, resource: ResourceRef, generation: &Value, outcome: Outcome) {
        self.reports += 1;
        let generation: Position = serde_json::from_value(generation.clone()).expect("a position");
        let results = vec![ResourceOutcome::new(resource, generation, outcome)];
        let report = NodeReport { node_id: self.id, incarnation: 1, sequence: self.reports, results };
        self.call(Request::of::<ReportNode>(), &report).await;
    }

    async fn call(&self, request: Request, body: &(impl Serialize + Sync)) {
        let options = CallOptions { timeout: DEADLINE, idempotency_key: None };
        self.connection.call_untyped::<_, Value>(request, body, options).await.expect("accepted");
    }
}

impl Drop for SimulatedNode {
    fn drop(&mut self) {
        if let Some(heartbeats) = self.heartbeats.take() {
            heartbeats.abort();
        }
    }
}

/// Redeems a join token that the program has made for this node; returns a connection with its key.
async fn enroll(control_plane: &ControlPlane, id: NodeId, name: &str) -> Nats {
    let made = run(control_plane, &format!("node join-token create --name {name}")).await;
    let token: JoinToken = made.stdout.parse().expect("a join token");
    let machine = control_plane.connect_as(token.creds).await;
    let pair = KeyPair::generate(KeyKind::User).expect("a key");
    let key: UserKey = pair.public_key().as_str().parse().expect("a key");
    let options = || CallOptions { timeout: DEADLINE, idempotency_key: None };
    let node = NodeToEnroll { name: name.parse().expect("a name"), key: key.clone(), node_id: Some(id) };
    machine.call::<EnrollNode>(&node, options()).await.expect("accepted");
    let credential = machine.call::<GetEnrolledNode>(&NewNodeKey { key }, options()).await.expect("accepted").data;
    control_plane.connect_as(Creds::new(credential.jwt, pair).expect("credentials")).await
}

/// Starts the program with this command line.
pub(crate) fn start(control_plane: &ControlPlane, line: &str) -> JoinHandle<ProgramOutput> {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let mut command = tokio::process::Command::from(control_plane.command(&words));
    tokio::spawn(async move {
        let output = command.output().await.expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        ProgramOutput { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    })
}

/// Runs the program with this command line.
pub(crate) async fn run(control_plane: &ControlPlane, line: &str) -> ProgramOutput {
    start(control_plane, line).await.expect("no panic")
}

/// Asserts the exit code and stderr.
#[track_caller]
pub(crate) fn assert_stderr(run: &ProgramOutput, code: i32, stderr: &str) {
    assert_eq!((run.code, run.stderr.as_str()), (Some(code), stderr), "{run:?}");
}
