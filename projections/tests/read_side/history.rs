//! Property: a query about the past is answered, byte for byte, as it was answered when its position was the last one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use otherix_projections::follow::{EventReader, ReadError};
use otherix_projections::history;
use otherix_projections::read_models;
use otherix_projections::service::Inputs;
use otherix_runtime::{Runtime, SeededRuntime, SystemRuntime};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::event::ListEvents;
use otherix_schemas::id::{NetworkId, VmId};
use otherix_schemas::network::{FindNetwork, GetNetwork, ListNetworks, NetworkCommand};
use otherix_schemas::node::{FindNode, GetNode, ListNodes, NodeReport};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::permission::Role;
use otherix_schemas::position::Position;
use otherix_schemas::request::{AsOf, Request, RequestType};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{Caller, ListUsers};
use otherix_schemas::value::UserId;
use otherix_schemas::vm::{FindVm, GetVm, ListVms};
use otherix_testkit::tempdir;
use otherix_transport::service::{Call, Sender};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::support::{
    DEADLINE, JournalEvents, WriteSide, create, create_vm, delete_vm, id, join, join_mesh, nic_id, presence, remove,
    sqlite3,
};

/// Nodes that are never removed; others come and go.
const NODES: u64 = 4;
/// Networks and VMs at the same time.
const SLOTS: u64 = 6;

/// Random commands.
struct Commands {
    runtime: Arc<SeededRuntime>,
    networks: BTreeMap<u64, (NetworkId, Position)>,
    vms: BTreeMap<u64, u128>,
    /// How many networks, VMs and nodes there have been.
    made: u128,
}

impl Commands {
    fn new(seed: u64) -> Self {
        Self { runtime: SeededRuntime::new(seed), networks: BTreeMap::new(), vms: BTreeMap::new(), made: 0 }
    }

    fn below(&self, limit: u64) -> u64 {
        self.runtime.random_u64() % limit
    }

    fn next(&mut self) -> u128 {
        self.made += 1;
        self.made
    }

    fn outcome(&self) -> Outcome {
        match self.below(5) {
            0 => Outcome::Failed(format!("broken {}", self.below(3))),
            1 => Outcome::Pending("waiting".to_owned()),
            2 => Outcome::Removed,
            _ => Outcome::Ready,
        }
    }

    /// Executes one command, which may be rejected.
    async fn step(&mut self, write: &WriteSide) {
        let slot = self.below(SLOTS);
        let node = u128::from(self.below(NODES)) + 1;
        let command = match self.below(20) {
            0..3 => {
                let network = NetworkId::new(Uuid::from_u128((9 << 100) + self.next()));
                let created = write.try_execute(create(network, &format!("net-{slot}"))).await;
                if let Ok(position) = created {
                    self.networks.insert(slot, (network, position));
                }
                return;
            }
            3 => {
                let Some((network_id, _)) = self.networks.get(&slot).copied() else { return };
                let delete = NetworkCommand::Delete { network_id };
                if let Ok(position) = write.try_execute(delete.into_command()).await {
                    self.networks.insert(slot, (network_id, position));
                }
                return;
            }
            4..6 => {
                let vm = self.next();
                let network = self.networks.get(&self.below(SLOTS)).map(|(network, _)| *network);
                if write.try_execute(create_vm(vm, &format!("vm-{slot}"), network)).await.is_ok() {
                    self.vms.insert(slot, vm);
                }
                return;
            }
            6..8 => {
                let Some(vm) = self.vms.get(&slot) else { return };
                delete_vm(VmId::new(Uuid::from_u128(*vm)))
            }
            8 if self.below(3) == 0 => join(1_000 + self.next()),
            8 => remove(1_000 + self.made.saturating_sub(u128::from(self.below(8)))),
            9 => presence(&[node], &[]),
            10 => presence(&[], &[node]),
            11 => join_mesh(node, u8::try_from(self.below(200)).unwrap() + 1, 51820),
            kind => {
                let results = if kind < 16 {
                    let known = self.networks.values().filter(|_| self.below(2) == 0);
                    let result = |(network, generation): &(NetworkId, Position)| {
                        let mut result =
                            ResourceOutcome::new(ResourceRef::Network(*network), *generation, self.outcome());
                        result.warnings = (self.below(4) == 0).then(|| "foreign".to_owned()).into_iter().collect();
                        result
                    };
                    known.map(result).collect()
                } else {
                    let generation = Position::new(write.head().get().saturating_sub(self.below(6)));
                    let result =
                        |vm: &u128| ResourceOutcome::new(ResourceRef::Nic(nic_id(*vm)), generation, self.outcome());
                    self.vms.values().map(result).collect::<Vec<_>>()
                };
                let sequence = write.head().get() + 1;
                NodeReport { node_id: id(node), incarnation: 1, sequence, results }.into_command()
            }
        };
        // Many are rejected.
        drop(write.try_execute(command).await);
    }

    async fn until(&mut self, write: &WriteSide, events: u64) {
        for node in 1..=u128::from(NODES) {
            write.execute(join(node)).await;
        }
        while write.head().get() < events {
            self.step(write).await;
        }
    }
}

/// A command that is a part of [`otherix_schemas::command::Command`].
trait IntoCommand {
    fn into_command(self) -> otherix_schemas::command::Command;
}

impl IntoCommand for NetworkCommand {
    fn into_command(self) -> otherix_schemas::command::Command {
        otherix_schemas::command::Command::Network(self)
    }
}

impl IntoCommand for NodeReport {
    fn into_command(self) -> otherix_schemas::command::Command {
        use otherix_schemas::node::NodeCommand;
        otherix_schemas::command::Command::Node(NodeCommand::RecordReport(self))
    }
}

/// The journal up to a position.
struct UpTo(JournalEvents, watch::Receiver<Position>);

impl EventReader for UpTo {
    fn read(&self, after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
        Box::pin(async move {
            let last = self.1.borrow().get();
            let limit = limit.min(u32::try_from(last.saturating_sub(after.get())).unwrap_or(u32::MAX));
            if limit == 0 { Ok(Vec::new()) } else { self.0.read(after, limit).await }
        })
    }
}

/// The query service without its connections. The last event is the one that the test says.
struct Queries {
    inputs: Inputs,
    head: watch::Sender<Position>,
    tasks: JoinSet<()>,
}

impl Queries {
    fn start(write: &WriteSide, folder: &Path) -> Self {
        Self::start_with(write, folder, SystemRuntime::shared())
    }

    /// Whose clock is that of `clock`.
    fn start_with(write: &WriteSide, folder: &Path, clock: Arc<dyn Runtime>) -> Self {
        let (head, receiver) = watch::channel(Position::ZERO);
        let (runtime, cluster) = (SystemRuntime::shared(), write.cluster());
        let events = Arc::new(UpTo(JournalEvents(Arc::clone(&write.journal)), receiver.clone()));
        let at = write.head();
        let (follower, models) = read_models::open(&folder.join("read-models.db"), cluster, at, runtime).unwrap();
        let (history_follower, history) = history::open(&folder.join("history.db"), cluster, at, clock).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(follower.run(receiver.clone(), Arc::clone(&events) as _));
        tasks.spawn(history_follower.run(receiver.clone(), Arc::clone(&events) as _));
        Self {
            inputs: Inputs { models, history, head: receiver, events, stream: Arc::new(|| Position::ZERO) },
            head,
            tasks,
        }
    }

    async fn ask<R: RequestType>(&self, body: Value, at: Option<AsOf>) -> Result<Bytes, ErrorBody> {
        self.inputs.answer(call::<R>("ann", body, at)).await
    }

    async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    /// The answers to all queries that concern what the commands have made.
    async fn answers(&self, made: u128, at: Option<AsOf>) -> Vec<Result<String, ErrorBody>> {
        let mut answers = Vec::new();
        let pages = json!({ "limit": 200 });
        answers.push(self.ask::<ListNetworks>(pages.clone(), at).await);
        answers.push(self.ask::<ListNetworks>(json!({ "limit": 2, "cursor": "v1.9" }), at).await);
        answers.push(self.ask::<ListVms>(pages.clone(), at).await);
        answers.push(self.ask::<ListNodes>(pages, at).await);
        for slot in 0..SLOTS {
            answers.push(self.ask::<FindNetwork>(json!({ "name": format!("NET-{slot}") }), at).await);
            answers.push(self.ask::<FindVm>(json!({ "name": format!("vm-{slot}") }), at).await);
        }
        for node in 1..=u128::from(NODES) {
            answers.push(self.ask::<FindNode>(json!({ "name": format!("Node-{node}") }), at).await);
            answers.push(self.ask::<GetNode>(json!({ "id": Uuid::from_u128(node) }), at).await);
        }
        for number in [made / 3, made / 2, made] {
            let network = Uuid::from_u128((9 << 100) + number);
            answers.push(self.ask::<GetNetwork>(json!({ "id": network }), at).await);
            answers.push(self.ask::<GetVm>(json!({ "id": Uuid::from_u128(number) }), at).await);
            answers.push(self.ask::<GetNode>(json!({ "id": Uuid::from_u128(1_000 + number) }), at).await);
        }
        answers.into_iter().map(|answer| answer.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())).collect()
    }
}

pub(crate) fn call<R: RequestType>(user: &str, body: Value, at: Option<AsOf>) -> Call {
    let user: UserId = user.parse().unwrap();
    let caller =
        Caller { key: user.clone(), id: user.clone(), name: user.to_string(), role: Role::Viewer, expires_at: None };
    Call {
        request: Request::of::<R>(),
        caller,
        sender: Sender { user, host: None, client: None },
        body: serde_json::to_vec(&body).unwrap().into(),
        idempotency_key: None,
        traceparent: None,
        dry_run: false,
        stale: false,
        at,
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Random positions up to `last`, in order.
fn positions(last: Position, count: u64, seed: u64) -> Vec<Position> {
    let runtime = SeededRuntime::new(seed);
    let mut positions: Vec<u64> = (0..count).map(|_| runtime.random_u64() % last.get() + 1).collect();
    positions.extend([1, last.get()]);
    positions.sort_unstable();
    positions.dedup();
    positions.into_iter().map(Position::new).collect()
}

#[tokio::test]
async fn the_past_is_answered_as_it_was_then() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let (seed, events) = (number("OTHERIX_SEED", 1), number("OTHERIX_EVENTS", 1_000));
    let mut commands = Commands::new(seed);
    commands.until(&write, events).await;
    let positions = positions(write.head(), number("OTHERIX_POSITIONS", 60), seed);
    let mut queries = Queries::start(&write, folder.path());
    let mut recorded = Vec::new();
    for (number, position) in (0..).zip(&positions) {
        queries.head.send_replace(*position);
        recorded.push(queries.answers(commands.made, None).await);
        if number == positions.len() / 2 {
            // The history continues where it was.
            assert!(queries.inputs.history.reach(*position, DEADLINE).await);
            queries.stop().await;
            queries = Queries::start(&write, folder.path());
        }
    }
    queries.head.send_replace(write.head());
    assert!(queries.inputs.history.reach(write.head(), DEADLINE * 10).await);
    let found: usize = recorded.iter().flatten().filter(|answer| answer.is_ok()).count();
    assert!(found > recorded.len() * 10, "{found} answers are too few");
    // In another order than that of the events.
    for (position, recorded) in positions.iter().zip(&recorded).rev() {
        let at = Some(AsOf::Position(*position));
        let answers = queries.answers(commands.made, at).await;
        for (then, now) in recorded.iter().zip(&answers) {
            assert_eq!(then, now, "at position {position}, seed {seed}");
        }
    }
    queries.stop().await;
}

#[tokio::test]
async fn a_time_is_that_of_the_last_event_at_or_before_it() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    Commands::new(2).until(&write, 40).await;
    let queries = Queries::start(&write, folder.path());
    queries.head.send_replace(write.head());
    let stored = write.journal_times().await;
    let list = async |at| queries.ask::<ListNetworks>(json!({}), Some(at)).await;
    for (position, time) in &stored {
        let last = stored.iter().rfind(|(_, other)| other <= time).unwrap().0;
        let expected = list(AsOf::Position(last)).await.unwrap();
        assert_eq!(list(AsOf::Time(*time)).await.unwrap(), expected, "{position}");
    }
    let first = stored[0].1;
    let before = Timestamp::from_unix_micros(first.unix_micros() - 1).unwrap();
    let future = Timestamp::from_unix_micros(SystemRuntime.now().unwrap().unix_micros() + 60_000_000).unwrap();
    let after = Position::new(write.head().get() + 1);
    for (at, text) in [
        (AsOf::Time(before), format!("is before the first event: it was recorded at {first}")),
        (AsOf::Time(future), "is in the future".to_owned()),
        (AsOf::Position(after), format!("position {after} is in the future: the last event is at {}", write.head())),
        (AsOf::Position(Position::ZERO), "position 0 is before the first event".to_owned()),
    ] {
        let error = list(at).await.unwrap_err().error;
        assert_eq!(error.code, ErrorCode::ValidationFailed);
        assert!(error.message.contains(&text), "{}", error.message);
    }
    let at = Some(AsOf::Position(Position::new(1)));
    for refused in [queries.ask::<ListUsers>(json!({}), at).await, queries.ask::<ListEvents>(json!({}), at).await] {
        assert!(refused.unwrap_err().error.message.contains("has no history"));
    }
    queries.stop().await;
}

#[tokio::test]
async fn the_time_of_an_event_is_not_in_the_future_after_the_clock_was_set_back() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    Commands::new(4).until(&write, 40).await;
    let clock = SeededRuntime::new(4);
    clock.set_time("2025-01-01T00:00:00Z".parse().unwrap());
    let queries = Queries::start_with(&write, folder.path(), clock);
    queries.head.send_replace(write.head());
    let stored = write.journal_times().await;
    let list = async |at| queries.ask::<ListNetworks>(json!({}), Some(at)).await;
    let (last, time) = *stored.last().unwrap();
    assert_eq!(list(AsOf::Time(time)).await.unwrap(), list(AsOf::Position(last)).await.unwrap());
    let after = Timestamp::from_unix_micros(time.unix_micros() + 1).unwrap();
    let error = list(AsOf::Time(after)).await.unwrap_err().error;
    assert!(error.message.contains("is in the future"), "{}", error.message);
    queries.stop().await;
}

#[tokio::test]
async fn a_history_that_cannot_be_continued_is_built_again() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let mut commands = Commands::new(3);
    commands.until(&write, 60).await;
    let path = folder.path().join("history.db");
    let at = Some(AsOf::Position(Position::new(50)));
    let mut expected = Vec::new();
    let other = "UPDATE progress SET cluster = 'other'";
    let version = "UPDATE progress SET made_with = '{}'";
    for change in ["", other, version, "UPDATE progress SET position = 1000000", "DELETE FROM progress", "damage"] {
        if change == "damage" {
            std::fs::write(&path, vec![7; 8192]).unwrap();
        } else {
            // An altered row shows whether the old file was used.
            let alter = "UPDATE nodes_versions SET name = 'altered';";
            drop(path.exists().then(|| sqlite3(&path, &format!("{alter} {change};"))));
        }
        let queries = Queries::start(&write, folder.path());
        queries.head.send_replace(write.head());
        assert!(queries.inputs.history.reach(write.head(), DEADLINE).await, "{change}");
        let answers = queries.answers(commands.made, at).await;
        if expected.is_empty() {
            expected.clone_from(&answers);
        }
        assert_eq!(answers, expected, "{change}");
        queries.stop().await;
    }
}

#[tokio::test]
async fn who_asks_for_much_of_the_past_delays_others_little() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    Commands::new(4).until(&write, 100).await;
    let queries = Queries::start(&write, folder.path());
    queries.head.send_replace(write.head());
    assert!(queries.inputs.history.reach(write.head(), DEADLINE).await);
    let ask = |user: &'static str| {
        let call = call::<ListNodes>(user, json!({}), Some(AsOf::Position(Position::new(50))));
        queries.inputs.answer(call)
    };
    let (flood, other) = tokio::join!(join_all((0..500).map(|_| ask("eve"))), async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        ask("ann").await
    });
    assert!(other.is_ok());
    let (answered, refused): (Vec<_>, Vec<_>) = flood.into_iter().partition(Result::is_ok);
    // Two at once; on a fast machine, some may have been answered before the last ones ask.
    assert!((2..=50).contains(&answered.len()), "{} answered", answered.len());
    assert!(refused.iter().all(|answer| answer.as_ref().unwrap_err().error.code == ErrorCode::Unavailable));
    queries.stop().await;
}
