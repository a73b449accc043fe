//! Property: at every position, read models that followed event by event have the same rows as rebuilt ones.

use std::cell::Cell;
use std::collections::BTreeSet;

use otherix_projections::node;
use otherix_projections::query::Page;
use otherix_schemas::command::Command;
use otherix_schemas::id::{NetworkId, VmId};
use otherix_schemas::network::NetworkCommand;
use otherix_schemas::node::{NetworkCounts, NodeCommand, NodeReport, NodeView};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::vm::VmCommand;
use otherix_testkit::tempdir;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use super::support::{
    ReadSide, WriteSide, create, create_vm, delete_vm, id, join, join_mesh, nic_id, presence, rebuilt_rows, remove,
};

const NETWORKS: u128 = 4;
const NODES: u128 = 3;
const VMS: u128 = 4;

/// A command to execute; many are rejected.
#[derive(Clone, Debug)]
enum Step {
    Create { network: u128, name: u8 },
    Delete { network: u128 },
    Join { node: u128 },
    JoinAs { node: u128, name: u128 },
    Remove { node: u128 },
    JoinMesh { node: u128, key: u8 },
    Presence { node: u128, reachable: bool },
    Report { node: u128, outcomes: Vec<(u128, u8)> },
    CreateVm { vm: u128, network: Option<u128> },
    DeleteVm { vm: u128 },
    ReportNic { node: u128, vm: u128, back: u64, outcome: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let outcomes = prop::collection::vec((0..NETWORKS, 0..4u8), 1..4);
    prop_oneof![
        4 => (0..NETWORKS, 0..3u8).prop_map(|(network, name)| Step::Create { network, name }),
        2 => (0..NETWORKS).prop_map(|network| Step::Delete { network }),
        1 => (0..NODES).prop_map(|node| Step::Join { node }),
        2 => (0..NODES, 0..NODES).prop_map(|(node, name)| Step::JoinAs { node: node + NODES, name }),
        2 => (0..NODES * 2).prop_map(|node| Step::Remove { node }),
        2 => (0..NODES, 1..5u8).prop_map(|(node, key)| Step::JoinMesh { node, key }),
        2 => (0..NODES, any::<bool>()).prop_map(|(node, reachable)| Step::Presence { node, reachable }),
        4 => (0..VMS, prop::option::of(0..NETWORKS)).prop_map(|(vm, network)| Step::CreateVm { vm, network }),
        2 => (0..VMS).prop_map(|vm| Step::DeleteVm { vm }),
        4 => (0..NODES * 2, 0..VMS, 0..4u64, 0..4u8)
            .prop_map(|(node, vm, back, outcome)| Step::ReportNic { node, vm, back, outcome }),
        6 => (0..NODES * 2, outcomes).prop_map(|(node, outcomes)| Step::Report { node, outcomes }),
    ]
}

/// The created networks: the id, and the position of the last decision.
type CreatedNetworks = Vec<Option<(NetworkId, Position)>>;

fn outcome(number: u8) -> Outcome {
    match number {
        0 => Outcome::Ready,
        1 => Outcome::Failed("broken".to_owned()),
        2 => Outcome::Pending("waiting".to_owned()),
        _ => Outcome::Removed,
    }
}

/// The command of a step after `head`.
fn command(step: Step, created: &CreatedNetworks, head: Position, sequence: u64) -> Option<Command> {
    let known = |network: u128| created.get(usize::try_from(network).unwrap()).copied().flatten();
    Some(match step {
        Step::Create { network: _, name } => create(NetworkId::new(Uuid::now_v7()), &format!("net-{name}")),
        Step::Delete { network } => Command::Network(NetworkCommand::Delete { network_id: known(network)?.0 }),
        Step::Join { node } => join(node + 1),
        Step::JoinAs { node, name } => {
            let name = format!("node-{}", name + 1).parse().unwrap();
            Command::Node(NodeCommand::Join {
                key: "node".parse().unwrap(),
                node_id: id(node + 1),
                name,
                mesh: None,
                arch: None,
            })
        }
        Step::Remove { node } => remove(node + 1),
        Step::JoinMesh { node, key } => join_mesh(node + 1, key, 51820),
        Step::Presence { node, reachable: true } => presence(&[], &[node + 1]),
        Step::Presence { node, reachable: false } => presence(&[node + 1], &[]),
        Step::Report { node, outcomes } => {
            let result = |(network, outcome): (u128, u8)| {
                let (network_id, generation) = known(network)?;
                let outcome = self::outcome(outcome);
                Some(ResourceOutcome::new(ResourceRef::Network(network_id), generation, outcome))
            };
            let results = outcomes.into_iter().filter_map(result).collect();
            Command::Node(NodeCommand::RecordReport(NodeReport {
                node_id: id(node + 1),
                incarnation: 1,
                sequence,
                results,
            }))
        }
        Step::CreateVm { vm, network } => {
            let network = match network {
                Some(network) => Some(known(network)?.0),
                None => None,
            };
            create_vm(vm + 1, &format!("vm-{vm}"), network)
        }
        Step::DeleteVm { vm } => delete_vm(VmId::new(Uuid::from_u128(vm + 1))),
        Step::ReportNic { node, vm, back, outcome } => {
            let generation = Position::new(head.get().saturating_sub(back));
            let mut result = ResourceOutcome::new(ResourceRef::Nic(nic_id(vm + 1)), generation, self::outcome(outcome));
            result.warnings = if back == 0 { vec!["a foreign firewall".to_owned()] } else { Vec::new() };
            Command::Node(NodeCommand::RecordReport(NodeReport {
                node_id: id(node + 1),
                incarnation: 1,
                sequence,
                results: vec![result],
            }))
        }
    })
}

/// Executes the steps, and compares the rows after each that led to events. Returns the number of events.
async fn compare_every_prefix(steps: Vec<Step>) -> u64 {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    let mut created: CreatedNetworks = vec![None; usize::try_from(NETWORKS).unwrap()];
    let mut vms = BTreeSet::new();
    for (sequence, step) in (1..).zip(steps) {
        let before = write.head();
        let Some(command) = command(step.clone(), &created, before, sequence) else { continue };
        // Ids are never reused.
        if let Command::Vm(VmCommand::Create { vm_id, .. }) = &command
            && !vms.insert(*vm_id)
        {
            continue;
        }
        let Ok(position) = write.try_execute(command.clone()).await else { continue };
        if position == before {
            continue;
        }
        if let Step::Create { network, .. } | Step::Delete { network } = step
            && let Command::Network(NetworkCommand::Create { network_id, .. })
            | Command::Network(NetworkCommand::Delete { network_id }) = command
        {
            *created.get_mut(usize::try_from(network).unwrap()).unwrap() = Some((network_id, position));
        }
        read.reach(position).await;
        assert_eq!(read.error(), None);
        assert_eq!(read.rows(), rebuilt_rows(&write).await, "at position {position}");
        assert_eq!(network_counts(&read), counted_networks(&read), "at position {position}");
    }
    write.head().get()
}

/// How many networks there are, and how many are ready on each node and have failed, as nodes show them.
fn network_counts(read: &ReadSide) -> Vec<(String, u64, u64, u64)> {
    let nodes = node::query::list(&read.db(), Page { limit: 200, after: Position::ZERO }).unwrap().views;
    let counts = |node: NodeView| {
        let NetworkCounts { ready, pending, failed } = node.network_counts;
        (node.id.to_string(), ready + pending + failed, ready, failed)
    };
    nodes.into_iter().map(counts).collect()
}

/// The same, counted.
fn counted_networks(read: &ReadSide) -> Vec<(String, u64, u64, u64)> {
    let count = |status: &str| {
        format!(
            "(SELECT COUNT(*) FROM outcomes JOIN networks ON networks.id = network_id WHERE node_id = nodes.id
             AND deleted_at IS NULL AND outcomes.generation = networks.generation AND status = '{status}')"
        )
    };
    let all = "(SELECT COUNT(*) FROM networks WHERE deleted_at IS NULL)";
    let (ready, failed) = (count("ready"), count("failed"));
    let db = read.db();
    let mut statement =
        db.prepare(&format!("SELECT id, {all}, {ready}, {failed} FROM nodes ORDER BY joined_position")).unwrap();
    let number = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, number(row, 1)?, number(row, 2)?, number(row, 3)?));
    statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn followed_read_models_equal_rebuilt_ones_at_every_position() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let events = Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 6, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(step(), 40..60), |steps| {
        // A join first, or no report is accepted.
        let steps = std::iter::once(Step::Join { node: 0 }).chain(steps).collect();
        events.set(events.get() + runtime.block_on(compare_every_prefix(steps)));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(events.get() > 60, "{} events are too few", events.get());
}
