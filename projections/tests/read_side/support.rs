//! A writer, and read models that follow its journal. Their database is inspected with the `sqlite3` command.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use otherix_commands::config::ClusterConfig;
use otherix_commands::store::{EventStore, SqliteStore};
use otherix_commands::writer::{Cause, CommandRequest, Refusal, Writer, WriterHandle};
use otherix_projections::follow::{EventReader, ReadError};
use otherix_projections::projection::Projection;
use otherix_projections::read_models::{self, ReadModels};
use otherix_projections::{READ_MODELS, network, node, user, vm};
use otherix_runtime::SystemRuntime;
use otherix_schemas::cloudevent::{Actor, EventEnvelope};
use otherix_schemas::command::Command;
use otherix_schemas::id::{ClusterId, CorrelationId, NetworkId, NicId, NodeId, VmId};
use otherix_schemas::network::{Egress, NetworkCommand, NewNetwork, NewNetworkSpec};
use otherix_schemas::nic::GeneratedNic;
use otherix_schemas::node::{MeshOffer, NodeCommand, NodeReport, UnreachableNode};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::RowScope;
use otherix_schemas::vm::{Arch, NewVm, VmCommand};
use otherix_testkit::{TempDir, tempdir};
use rusqlite::OpenFlags;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

#[derive(serde::Deserialize)]
struct AnswerMeta {
    meta: otherix_schemas::request::Meta,
}

/// A writer with its journal.
pub(crate) struct WriteSide {
    pub(crate) journal: Arc<SqliteStore>,
    handle: WriterHandle,
    head: watch::Receiver<Position>,
    _folder: TempDir,
}

impl WriteSide {
    pub(crate) async fn start() -> Self {
        let folder = tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let journal = Arc::new(SqliteStore::open(&path, ClusterId::new(Uuid::now_v7())).await.unwrap());
        let (writer, handle, _stored) =
            Writer::open(Arc::clone(&journal), ClusterConfig::default(), SystemRuntime::shared()).await.unwrap();
        let head = writer.head();
        tokio::spawn(writer.run());
        Self { journal, handle, head, _folder: folder }
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.journal.identity().cluster
    }

    pub(crate) fn head_receiver(&self) -> watch::Receiver<Position> {
        self.head.clone()
    }

    pub(crate) fn head(&self) -> Position {
        *self.head.borrow()
    }

    /// Executes a command. Returns the answer's position.
    pub(crate) async fn try_execute(&self, command: Command) -> Result<Position, Refusal> {
        self.try_execute_as("admin".parse().unwrap(), command).await
    }

    /// Executes a command of this actor.
    pub(crate) async fn execute_as(&self, actor: Actor, command: Command) -> Position {
        self.try_execute_as(actor, command).await.unwrap()
    }

    async fn try_execute_as(&self, actor: Actor, command: Command) -> Result<Position, Refusal> {
        let correlation_id = CorrelationId::new(Uuid::now_v7());
        let request =
            CommandRequest { command, actor, caller: None, correlation_id, cause: Cause::default(), key: None };
        let answer: AnswerMeta = serde_json::from_slice(&self.handle.execute(request).await?).unwrap();
        Ok(answer.meta.position)
    }

    pub(crate) async fn execute(&self, command: Command) -> Position {
        self.try_execute(command).await.unwrap()
    }

    /// The positions and times of all events.
    pub(crate) async fn journal_times(&self) -> Vec<(Position, Timestamp)> {
        let entries = self.journal.read(Position::ZERO, u32::MAX).await.unwrap();
        let headers = entries.iter().map(|entry| EventEnvelope::decode(&entry.body).unwrap().header);
        headers.map(|header| (header.position, header.time)).collect()
    }

    pub(crate) async fn create(&self, name: &str) -> NetworkId {
        let network_id = NetworkId::new(Uuid::now_v7());
        self.execute(create(network_id, name)).await;
        network_id
    }

    /// Reports an outcome of `node` for a network at `generation`.
    pub(crate) async fn report(&self, node: u128, network_id: NetworkId, generation: Position, outcome: Outcome) {
        self.report_all(node, vec![ResourceOutcome::new(ResourceRef::Network(network_id), generation, outcome)]).await;
    }

    /// Reports outcomes of `node`.
    pub(crate) async fn report_all(&self, node: u128, results: Vec<ResourceOutcome>) {
        let sequence = self.head().get() + 1;
        self.execute(Command::Node(NodeCommand::RecordReport(NodeReport {
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
    let spec = NewNetworkSpec::Overlay {
        subnet: "10.7.0.0/24".parse().unwrap(),
        egress: Egress::None,
        dhcp: None,
        allow_spoofing: false,
    };
    Command::Network(NetworkCommand::Create {
        network_id,
        network: NewNetwork {
            name: name.parse().unwrap(),
            spec,
            metadata: otherix_schemas::value::Metadata::default(),
        },
    })
}

/// Creates a VM, with a NIC if a network is given; the NIC has the VM's number. The control plane chooses the node.
pub(crate) fn create_vm(vm: u128, name: &str, network_id: Option<NetworkId>) -> Command {
    let nic = GeneratedNic { nic_id: nic_id(vm), mac: 0 };
    let vm_id = VmId::new(Uuid::from_u128(vm));
    let image_url = "https://images.example/a".parse().unwrap();
    let vm = NewVm {
        name: name.parse().unwrap(),
        image_url,
        arch: Arch::Amd64,
        network_id,
        ip: None,
        node_id: None,
        machine: None,
        metadata: otherix_schemas::value::Metadata::default(),
    };
    Command::Vm(VmCommand::Create { vm_id, nic, vm: Box::new(vm), owner: "admin".parse().unwrap() })
}

pub(crate) fn nic_id(number: u128) -> NicId {
    NicId::new(Uuid::from_u128(number << 80))
}

pub(crate) fn join(node: u128) -> Command {
    Command::Node(NodeCommand::Join {
        key: "node".parse().unwrap(),
        node_id: id(node),
        name: format!("node-{node}").parse().unwrap(),
        mesh: None,
        arch: None,
    })
}

/// Removes a node from the cluster.
pub(crate) fn remove(node: u128) -> Command {
    Command::Node(NodeCommand::Remove { node_id: id(node) })
}

/// Joins a node, which offers a public key that a number identifies, and an endpoint with a port.
pub(crate) fn join_mesh(node: u128, key: u8, port: u16) -> Command {
    let endpoint = format!("192.0.2.{node}:{port}").parse().unwrap();
    let mesh = Some(MeshOffer { public_key: [key; 32].try_into().unwrap(), endpoint });
    Command::Node(NodeCommand::Join {
        key: "node".parse().unwrap(),
        node_id: id(node),
        name: format!("node-{node}").parse().unwrap(),
        mesh,
        arch: None,
    })
}

/// Records nodes as unreachable and others as reachable again.
pub(crate) fn presence(unreachable: &[u128], reachable: &[u128]) -> Command {
    Command::Node(NodeCommand::RecordPresence {
        unreachable: unreachable
            .iter()
            .map(|node| UnreachableNode { node_id: id(*node), last_heard_at: None })
            .collect(),
        reachable: reachable.iter().map(|node| id(*node)).collect(),
    })
}

/// The names of all read models.
pub(crate) const ALL: [&str; 4] = [network::NAME, node::NAME, vm::NAME, user::NAME];

/// Reads events from the journal.
pub(crate) struct JournalEvents(pub(crate) Arc<SqliteStore>);

impl EventReader for JournalEvents {
    fn read(&self, after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
        Box::pin(async move { Ok(self.0.read(after, limit).await?.into_iter().map(|entry| entry.body).collect()) })
    }
}

/// Read models, and the task that keeps them up to date.
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

    /// Why a read model stopped.
    pub(crate) fn error(&self) -> Option<String> {
        self.models.error(&ALL)
    }

    /// Stops following at the current position.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Opens a connection for queries.
    pub(crate) fn db(&self) -> rusqlite::Connection {
        let db = rusqlite::Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        db.busy_timeout(DEADLINE).unwrap();
        db
    }

    pub(crate) fn sql(&self, statements: &str) -> String {
        sqlite3(&self.path, statements)
    }

    /// All rows of the read models.
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

/// All rows of the read models in a file.
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
        "users",
    ];
    let rows = tables.map(|table| format!("SELECT '{table}', * FROM {table} ORDER BY 2, 3;")).join("\n");
    sqlite3(path, &format!("{rows}\nSELECT name, position FROM checkpoints ORDER BY name;"))
}

/// All rows of read models that are built from all events.
pub(crate) async fn rebuilt_rows(write: &WriteSide) -> String {
    let folder = tempdir().unwrap();
    let rebuilt = ReadSide::start(write, folder.path()).await;
    rebuilt.reach(write.head()).await;
    let rows = rebuilt.rows();
    rebuilt.stop().await;
    rows
}

/// A command that deletes a VM, by a user who may delete any.
pub(crate) fn delete_vm(vm_id: VmId) -> Command {
    Command::Vm(VmCommand::Delete { vm_id, scope: RowScope::Any })
}
