//! A journal in a folder of its own, a writer on it, and commands to give it. Looks at the database through the
//! `sqlite3` command, not through the code under test.

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otherix_commands::config::ClusterConfig;
use otherix_commands::relay::Notes;
use otherix_commands::store::{Digest, Entry, EventStore, MemoryStore, SqliteStore};
use otherix_commands::writer::{CommandRequest, Durable, IdempotencyKey, Refusal, Writer, WriterError, WriterHandle};
use otherix_runtime::SystemRuntime;
use otherix_schemas::command::Command;
use otherix_schemas::id::{ClusterId, CorrelationId, NetworkId, NodeId};
use otherix_schemas::network::{NetworkCommand, NewNetwork, NewNetworkSpec};
use otherix_schemas::node::{MeshOffer, NodeCommand};
use otherix_testkit::{TempDir, tempdir};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A folder with a journal.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
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

    /// What the `sqlite3` command prints.
    pub(crate) fn sql(&self, statements: &str) -> String {
        sql(&self.path(), statements).unwrap()
    }
}

/// A store in memory, which can be made to fail.
pub(crate) fn memory_store() -> MemoryStore {
    MemoryStore::new(ClusterId::new(Uuid::now_v7()))
}

/// Runs statements with the `sqlite3` command; what it complains of is the error.
pub(crate) fn sql(path: &Path, statements: &str) -> Result<String, String> {
    let output = Process::new("sqlite3").args(["-bail", "-batch"]).arg(path).arg(statements).output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

/// A writer that runs.
pub(crate) struct Running<J> {
    pub(crate) journal: Arc<J>,
    pub(crate) asks: WriterHandle,
    pub(crate) durable: watch::Receiver<Durable>,
    pub(crate) stored: mpsc::Receiver<Vec<Entry>>,
    pub(crate) task: JoinHandle<Result<(), WriterError>>,
}

impl<J: EventStore> Running<J> {
    pub(crate) async fn start(journal: J) -> Self {
        let journal = Arc::new(journal);
        let (writer, asks, stored) =
            Writer::open(Arc::clone(&journal), ClusterConfig::default(), SystemRuntime::shared()).await.unwrap();
        Self { journal, asks, durable: writer.durable(), stored, task: tokio::spawn(writer.run()) }
    }

    /// Asks, and gives the answer's position.
    pub(crate) async fn execute(&self, ask: CommandRequest) -> Result<u64, Refusal> {
        self.asks.execute(ask).await.map(|answer| position(&answer))
    }

    /// Asks in a task of its own.
    pub(crate) fn begin(&self, ask: CommandRequest) -> JoinHandle<Result<Bytes, Refusal>> {
        let asks = self.asks.clone();
        tokio::spawn(async move { asks.execute(ask).await })
    }

    /// Lets the writer end by itself, and gives the journal back.
    pub(crate) async fn stop(self) -> Arc<J> {
        drop(self.asks);
        self.task.await.unwrap().unwrap();
        self.journal
    }
}

/// The position that an answer rests on.
pub(crate) fn position(answer: &[u8]) -> u64 {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
    answer["meta"]["position"].as_u64().unwrap()
}

pub(crate) fn ask(command: Command) -> CommandRequest {
    let correlation_id = CorrelationId::new(Uuid::now_v7());
    CommandRequest { command, actor: "admin".parse().unwrap(), correlation_id, traceparent: None, key: None }
}

/// To make an overlay, which goes with any number of others.
pub(crate) fn create(name: &str) -> CommandRequest {
    let network = NewNetwork {
        name: name.parse().unwrap(),
        spec: NewNetworkSpec::Overlay { subnet: "10.7.0.0/24".parse().unwrap() },
    };
    ask(Command::Network(NetworkCommand::Create { network_id: NetworkId::new(Uuid::now_v7()), network }))
}

pub(crate) fn join(name: &str) -> CommandRequest {
    ask(Command::Node(NodeCommand::Join {
        node_id: NodeId::new(Uuid::now_v7()),
        name: name.parse().unwrap(),
        mesh: None,
    }))
}

/// `node-<number>` joins with a key and an endpoint of its own.
pub(crate) fn join_mesh(number: u8) -> CommandRequest {
    let (node_id, name) = (NodeId::new(Uuid::from_u128(number.into())), format!("node-{number}").parse().unwrap());
    let endpoint = format!("192.0.2.{number}:51820").parse().unwrap();
    let mesh = Some(MeshOffer { public_key: [number; 32].try_into().unwrap(), endpoint });
    ask(Command::Node(NodeCommand::Join { node_id, name, mesh }))
}

pub(crate) fn with_key(ask: CommandRequest, key: &str, body: &str) -> CommandRequest {
    let key = IdempotencyKey { key: key.to_owned(), fingerprint: Digest::of(&[body.as_bytes()]) };
    CommandRequest { key: Some(key), ..ask }
}

/// An ask that must not be answered yet: time for it to go wrong in.
pub(crate) async fn assert_unanswered(asked: &mut JoinHandle<Result<Bytes, Refusal>>) {
    if let Ok(answer) = tokio::time::timeout(Duration::from_millis(60), asked).await {
        panic!("answered before what it rests on was durable: {answer:?}");
    }
}
