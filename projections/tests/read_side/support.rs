//! A write side with a stream to follow, read models on it, and a look at these through the `sqlite3` command.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use otherix_commands::config::ClusterConfig;
use otherix_commands::relay::{Inputs, Notes, Relay};
use otherix_commands::store::{EventStore, SqliteStore};
use otherix_commands::writer::{CommandRequest, Refusal, Writer, WriterHandle};
use otherix_projections::follow::{EventReader, ReadError};
use otherix_projections::projection::Projection;
use otherix_projections::read_models::{self, ReadModels};
use otherix_projections::{READ_MODELS, network, node, vm};
use otherix_runtime::SystemRuntime;
use otherix_schemas::command::Command;
use otherix_schemas::id::{ClusterId, CorrelationId, NetworkId, NicId, NodeId, VmId};
use otherix_schemas::network::{NetworkCommand, NewNetwork, NewNetworkSpec};
use otherix_schemas::nic::GeneratedNic;
use otherix_schemas::node::{MeshOffer, NodeCommand, NodeReport, UnreachableNode};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::vm::{Arch, NewVm, VmCommand};
use otherix_testkit::nats::NatsServer;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use rusqlite::OpenFlags;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// What answers carry of their position.
#[derive(serde::Deserialize)]
struct Rests {
    meta: otherix_schemas::request::Meta,
}

pub(crate) async fn connect(server: &NatsServer) -> Nats {
    let credentials = Credentials { user: "otherixd".parse().unwrap(), password: "none".to_owned() };
    Nats::lasting(&NatsEndpoint { url: server.url(), credentials }, "test").await.unwrap()
}

/// A writer, its relay and the stream.
pub(crate) struct WriteSide {
    pub(crate) connection: Nats,
    pub(crate) journal: Arc<SqliteStore>,
    asks: WriterHandle,
    head: watch::Receiver<Position>,
    _folder: TempDir,
    _server: NatsServer,
}

impl WriteSide {
    pub(crate) async fn start() -> Self {
        let (server, folder) = (NatsServer::start(), tempdir().unwrap());
        let path = folder.path().join("journal.db");
        let journal = Arc::new(SqliteStore::open(&path, ClusterId::new(Uuid::now_v7())).await.unwrap());
        let connection = connect(&server).await;
        let (writer, asks, stored) =
            Writer::open(Arc::clone(&journal), ClusterConfig::default(), SystemRuntime::shared()).await.unwrap();
        let head = writer.head();
        let notes = Notes::new(folder.path().join("relay"));
        let inputs = Inputs { notes, stored, durable: writer.durable(), runtime: SystemRuntime::shared() };
        tokio::spawn(Relay::new(Arc::clone(&journal), &connection, inputs).run());
        tokio::spawn(writer.run());
        Self { connection, journal, asks, head, _folder: folder, _server: server }
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.journal.identity().cluster
    }

    pub(crate) fn head(&self) -> Position {
        *self.head.borrow()
    }

    /// Gives a command, and the position that the answer rests on.
    pub(crate) async fn try_ask(&self, command: Command) -> Result<Position, Refusal> {
        let correlation_id = CorrelationId::new(Uuid::now_v7());
        let ask =
            CommandRequest { command, actor: "admin".parse().unwrap(), correlation_id, traceparent: None, key: None };
        let answer: Rests = serde_json::from_slice(&self.asks.execute(ask).await?).unwrap();
        Ok(answer.meta.position)
    }

    pub(crate) async fn ask(&self, command: Command) -> Position {
        self.try_ask(command).await.unwrap()
    }

    pub(crate) async fn create(&self, name: &str) -> NetworkId {
        let network_id = NetworkId::new(Uuid::now_v7());
        self.ask(create(network_id, name)).await;
        network_id
    }

    /// What `node` says of a network at its present generation, which is `generation`.
    pub(crate) async fn report(&self, node: u128, network_id: NetworkId, generation: Position, outcome: Outcome) {
        self.say(node, vec![ResourceOutcome::new(ResourceRef::Network(network_id), generation, outcome)]).await;
    }

    /// What `node` says.
    pub(crate) async fn say(&self, node: u128, results: Vec<ResourceOutcome>) {
        let sequence = self.head().get() + 1;
        self.ask(Command::Node(NodeCommand::RecordReport(NodeReport {
            node_id: id(node),
            incarnation: 1,
            sequence,
            results,
        })))
        .await;
    }
}

pub(crate) fn id(node: u128) -> NodeId {
    NodeId::new(Uuid::from_u128(node))
}

pub(crate) fn create(network_id: NetworkId, name: &str) -> Command {
    let spec = NewNetworkSpec::Overlay { subnet: "10.7.0.0/24".parse().unwrap() };
    Command::Network(NetworkCommand::Create { network_id, network: NewNetwork { name: name.parse().unwrap(), spec } })
}

/// A VM with a NIC on the network, if there is one; the NIC's id is the VM's. The node is chosen.
pub(crate) fn create_vm(vm: u128, name: &str, network_id: Option<NetworkId>) -> Command {
    let nic = GeneratedNic { nic_id: nic_id(vm), mac: 0 };
    let vm_id = VmId::new(Uuid::from_u128(vm));
    let image_url = "https://images.example/a".parse().unwrap();
    let vm = NewVm { name: name.parse().unwrap(), image_url, arch: Arch::Amd64, network_id, node_id: None };
    Command::Vm(VmCommand::Create { vm_id, nic, vm })
}

pub(crate) fn nic_id(number: u128) -> NicId {
    NicId::new(Uuid::from_u128(number << 80))
}

pub(crate) fn join(node: u128) -> Command {
    Command::Node(NodeCommand::Join { node_id: id(node), name: format!("node-{node}").parse().unwrap(), mesh: None })
}

/// A node leaves the cluster.
pub(crate) fn remove(node: u128) -> Command {
    Command::Node(NodeCommand::Remove { node_id: id(node) })
}

/// A node joins and offers a key that goes by a number, and an endpoint at a port.
pub(crate) fn join_mesh(node: u128, key: u8, port: u16) -> Command {
    let endpoint = format!("192.0.2.{node}:{port}").parse().unwrap();
    let mesh = Some(MeshOffer { public_key: [key; 32].try_into().unwrap(), endpoint });
    Command::Node(NodeCommand::Join { node_id: id(node), name: format!("node-{node}").parse().unwrap(), mesh })
}

/// These nodes fell silent, and those are heard again.
pub(crate) fn presence(silent: &[u128], heard: &[u128]) -> Command {
    Command::Node(NodeCommand::RecordPresence {
        unreachable: silent.iter().map(|node| UnreachableNode { node_id: id(*node), last_heard_at: None }).collect(),
        reachable: heard.iter().map(|node| id(*node)).collect(),
    })
}

/// Every read model.
pub(crate) const ALL: [&str; 3] = [network::NAME, node::NAME, vm::NAME];

/// The journal, read by projections.
pub(crate) struct JournalEvents(pub(crate) Arc<SqliteStore>);

impl EventReader for JournalEvents {
    fn read(&self, after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
        Box::pin(async move { Ok(self.0.read(after, limit).await?.into_iter().map(|entry| entry.body).collect()) })
    }
}

/// Read models that follow.
pub(crate) struct ReadSide {
    pub(crate) models: ReadModels,
    path: PathBuf,
    task: JoinHandle<()>,
}

impl ReadSide {
    pub(crate) async fn start(write: &WriteSide, folder: &Path) -> Self {
        Self::start_with(write, folder, READ_MODELS).await
    }

    pub(crate) async fn start_with(
        write: &WriteSide,
        folder: &Path,
        projections: &'static [&'static dyn Projection],
    ) -> Self {
        let path = folder.join("read-models.db");
        let opened = read_models::open_with(&path, write.cluster(), write.head(), SystemRuntime::shared(), projections);
        let (follower, models) = opened.unwrap();
        let events = Arc::new(JournalEvents(Arc::clone(&write.journal)));
        let task = tokio::spawn(follower.run(write.head.clone(), events));
        Self { models, path, task }
    }

    pub(crate) async fn reach(&self, position: Position) {
        let reached = self.models.reach(&ALL, position, DEADLINE).await;
        assert!(reached, "at {} instead of {position}: {:?}", self.models.applied(), self.error());
    }

    /// What keeps a read model from going on.
    pub(crate) fn error(&self) -> Option<String> {
        self.models.error(&ALL)
    }

    /// Stops following, at whatever position it is.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// For queries.
    pub(crate) fn db(&self) -> rusqlite::Connection {
        let db = rusqlite::Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        db.busy_timeout(DEADLINE).unwrap();
        db
    }

    pub(crate) fn sql(&self, statements: &str) -> String {
        sqlite3(&self.path, statements)
    }

    /// All that the read models hold.
    pub(crate) fn rows(&self) -> String {
        all_rows(&self.path)
    }
}

pub(crate) fn sqlite3(path: &Path, statements: &str) -> String {
    let mut sqlite3 = Process::new("sqlite3");
    sqlite3.args(["-bail", "-batch", "-cmd", ".timeout 5000"]).arg(path);
    let mut child = sqlite3.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(statements.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// All that the read models in a file hold.
pub(crate) fn all_rows(path: &Path) -> String {
    let tables = [
        "networks",
        "network_nodes",
        "outcomes",
        "awaited",
        "removals",
        "nodes",
        "vms",
        "nics",
        "vm_networks",
        "vm_nodes",
    ];
    let rows = tables.map(|table| format!("SELECT '{table}', * FROM {table} ORDER BY 2, 3;")).join("\n");
    sqlite3(path, &format!("{rows}\nSELECT name, position FROM checkpoints ORDER BY name;"))
}

/// What read models that are built from all events hold.
pub(crate) async fn fresh_rows(write: &WriteSide) -> String {
    let folder = tempdir().unwrap();
    let fresh = ReadSide::start(write, folder.path()).await;
    fresh.reach(write.head()).await;
    let rows = fresh.rows();
    fresh.stop().await;
    rows
}
