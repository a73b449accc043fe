//! A journal in a temporary folder, a writer on it, and requests for it. The database is inspected with the `sqlite3`
//! command, not with the code under test.

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otherix_commands::config::ClusterConfig;
use otherix_commands::domain::Roster;
use otherix_commands::relay::Notes;
use otherix_commands::store::{Digest, EventStore, MemoryStore, SqliteStore};
use otherix_commands::writer::{
    Cause, CommandRequest, Durable, IdempotencyKey, Refusal, StoredBatch, Writer, WriterError, WriterHandle,
};
use otherix_runtime::SystemRuntime;
use otherix_schemas::command::Command;
use otherix_schemas::id::{ClusterId, CorrelationId, NetworkId, NicId, NodeId, VmId};
use otherix_schemas::network::{Egress, NetworkCommand, NewNetwork, NewNetworkSpec};
use otherix_schemas::nic::GeneratedNic;
use otherix_schemas::node::{MeshOffer, NodeCommand};
use otherix_schemas::user::Callers;
use otherix_schemas::vm::{Arch, NewVm, VmCommand};
use otherix_testkit::{TempDir, tempdir};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A temporary folder with a journal.
pub(crate) struct JournalFolder {
    folder: TempDir,
}

impl JournalFolder {
    pub(crate) fn new() -> Self {
        Self { folder: tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    pub(crate) fn notes(&self) -> Notes {
        Notes::new(self.folder.path().join("relay"))
    }

    pub(crate) async fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path(), ClusterId::new(Uuid::now_v7())).await.unwrap()
    }

    /// Copies the journal of a process that has ended. Closing it may have left events in the write-ahead log.
    pub(crate) fn copy(&self, to: impl AsRef<Path>) {
        self.sql("PRAGMA wal_checkpoint(TRUNCATE)");
        std::fs::copy(self.path(), to).unwrap();
    }

    /// Runs statements with the `sqlite3` command. Returns its output.
    pub(crate) fn sql(&self, statements: &str) -> String {
        sql(&self.path(), statements).unwrap()
    }
}

/// A store in memory, which can be made to fail.
pub(crate) fn memory_store() -> MemoryStore {
    MemoryStore::new(ClusterId::new(Uuid::now_v7()))
}

/// Runs statements with the `sqlite3` command. Returns its output, or its messages as an error.
pub(crate) fn sql(path: &Path, statements: &str) -> Result<String, String> {
    let output = Process::new("sqlite3")
        .args(["-bail", "-batch", "-cmd", ".timeout 10000"])
        .arg(path)
        .arg(statements)
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

/// A writer in a task of its own.
pub(crate) struct RunningWriter<J> {
    pub(crate) journal: Arc<J>,
    pub(crate) handle: WriterHandle,
    pub(crate) durable: watch::Receiver<Durable>,
    pub(crate) callers: watch::Receiver<Callers>,
    pub(crate) roster: watch::Receiver<Roster>,
    pub(crate) stored: mpsc::Receiver<StoredBatch>,
    pub(crate) task: JoinHandle<Result<(), WriterError>>,
}

impl<J: EventStore> RunningWriter<J> {
    pub(crate) async fn start(journal: J) -> Self {
        let journal = Arc::new(journal);
        let (writer, handle, stored) =
            Writer::open(Arc::clone(&journal), ClusterConfig::default(), SystemRuntime::shared()).await.unwrap();
        let (durable, callers, roster) = (writer.durable(), writer.callers(), writer.roster());
        Self { journal, handle, durable, callers, roster, stored, task: tokio::spawn(writer.run()) }
    }

    /// Executes a command. Returns the answer's position.
    pub(crate) async fn execute(&self, request: CommandRequest) -> Result<u64, Refusal> {
        self.handle.execute(request).await.map(|answer| position(&answer))
    }

    /// Executes a command in a task of its own.
    pub(crate) fn begin(&self, request: CommandRequest) -> JoinHandle<Result<Bytes, Refusal>> {
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.execute(request).await })
    }

    /// Waits until the writer has ended. Returns the journal.
    pub(crate) async fn stop(self) -> Arc<J> {
        drop(self.handle);
        self.task.await.unwrap().unwrap();
        self.journal
    }
}

/// Returns the position in an answer.
pub(crate) fn position(answer: &[u8]) -> u64 {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
    answer["meta"]["position"].as_u64().unwrap()
}

pub(crate) fn request(command: Command) -> CommandRequest {
    let correlation_id = CorrelationId::new(Uuid::now_v7());
    CommandRequest {
        command,
        actor: "admin".parse().unwrap(),
        caller: None,
        correlation_id,
        cause: Cause::default(),
        key: None,
    }
}

/// Creates an overlay; it can conflict with another network only by its name.
pub(crate) fn create(name: &str) -> CommandRequest {
    let network = NewNetwork {
        name: name.parse().unwrap(),
        spec: NewNetworkSpec::Overlay {
            subnet: "10.7.0.0/24".parse().unwrap(),
            egress: Egress::None,
            dhcp: None,
            allow_spoofing: false,
        },
        metadata: otherix_schemas::value::Metadata::default(),
    };
    request(Command::Network(NetworkCommand::Create { network_id: NetworkId::new(Uuid::now_v7()), network }))
}

/// Creates a VM on a network.
pub(crate) fn create_vm(number: usize, network_id: NetworkId) -> CommandRequest {
    let vm = NewVm {
        name: format!("vm-{number}").parse().unwrap(),
        image_url: "https://images.example/a".parse().unwrap(),
        arch: Arch::Amd64,
        network_id: Some(network_id),
        ip: None,
        node_id: None,
        machine: None,
        metadata: otherix_schemas::value::Metadata::default(),
    };
    let [a, b, c, d, ..] = Uuid::new_v4().into_bytes();
    let nic = GeneratedNic { nic_id: NicId::new(Uuid::new_v4()), mac: u32::from_le_bytes([a, b, c, d]) };
    let (vm_id, owner) = (VmId::new(Uuid::now_v7()), "admin".parse().unwrap());
    request(Command::Vm(VmCommand::Create { vm_id, nic, vm: Box::new(vm), owner }))
}

pub(crate) fn join(name: &str) -> CommandRequest {
    request(Command::Node(NodeCommand::Join {
        key: "node".parse().unwrap(),
        node_id: NodeId::new(Uuid::now_v7()),
        name: name.parse().unwrap(),
        mesh: None,
        arch: None,
    }))
}

/// Joins `node-<number>` with a key and an endpoint of its own.
pub(crate) fn join_mesh(number: u8) -> CommandRequest {
    let (node_id, name) = (NodeId::new(Uuid::from_u128(number.into())), format!("node-{number}").parse().unwrap());
    let endpoint = format!("192.0.2.{number}:51820").parse().unwrap();
    let mesh = Some(MeshOffer { public_key: [number; 32].try_into().unwrap(), endpoint });
    request(Command::Node(NodeCommand::Join { key: "node".parse().unwrap(), node_id, name, mesh, arch: None }))
}

pub(crate) fn with_key(request: CommandRequest, key: &str, body: &str) -> CommandRequest {
    let key = IdempotencyKey { key: key.to_owned(), fingerprint: Digest::of(&[body.as_bytes()]) };
    CommandRequest { key: Some(key), ..request }
}

/// Asserts that a command is not answered within 60 ms.
pub(crate) async fn assert_unanswered(answer: &mut JoinHandle<Result<Bytes, Refusal>>) {
    if let Ok(answer) = tokio::time::timeout(Duration::from_millis(60), answer).await {
        panic!("answered before the batch it depends on was durable: {answer:?}");
    }
}
