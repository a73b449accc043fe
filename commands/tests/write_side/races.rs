//! When a network is deleted while VMs are created on it, either the deletion succeeds and all creations are rejected,
//! or the other way round.

use std::ops::Range;

use bytes::Bytes;
use futures::future::join_all;
use otherix_commands::domain::Rejection;
use otherix_commands::store::{EventStore, replay};
use otherix_commands::writer::{CommandRequest, Refusal};
use otherix_schemas::command::Command;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::NetworkCommand;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::support::{JournalFolder, RunningWriter, create, create_vm, join, request};

const RACES: usize = 10_000;

/// Races at the same time: few enough to share a few batches.
const AT_ONCE: usize = 250;

/// The largest number of VMs that are created on a network while it is deleted.
const RIVALS_MAX: usize = 3;

fn network_of(create: &CommandRequest) -> NetworkId {
    let Command::Network(NetworkCommand::Create { network_id, .. }) = &create.command else { panic!("not a network") };
    *network_id
}

fn random() -> u32 {
    let [a, b, c, d, ..] = Uuid::new_v4().into_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// A race in progress.
struct Race {
    network_id: NetworkId,
    delete: JoinHandle<Result<Bytes, Refusal>>,
    attaches: Vec<JoinHandle<Result<Bytes, Refusal>>>,
}

impl Race {
    /// Submits the requests in random order; the scheduler decides when their tasks run.
    fn start<J: EventStore>(writer: &RunningWriter<J>, number: usize, network_id: NetworkId) -> Self {
        let rivals = random() as usize % RIVALS_MAX + 1;
        let before = random() as usize % (rivals + 1);
        let begin = |rivals: Range<usize>| {
            let create = |rival| writer.begin(create_vm(number * RIVALS_MAX + rival, network_id));
            rivals.map(create).collect::<Vec<_>>()
        };
        let mut attaches = begin(0..before);
        let delete = writer.begin(request(Command::Network(NetworkCommand::Delete { network_id })));
        attaches.extend(begin(before..rivals));
        Self { network_id, delete, attaches }
    }

    /// Returns the number of attached NICs: zero if the deletion has succeeded.
    async fn end(self) -> usize {
        let Self { network_id, delete, attaches } = self;
        let delete = delete.await.unwrap();
        let attaches: Vec<_> = join_all(attaches).await.into_iter().map(Result::unwrap).collect();
        let is_late = |attach: &Result<Bytes, Refusal>| match attach {
            Err(Refusal::Rejected(Rejection::NoSuchNetwork(id))) => *id == network_id,
            Ok(_) | Err(_) => false,
        };
        match &delete {
            Ok(_) if attaches.iter().all(is_late) => 0,
            Err(Refusal::Rejected(Rejection::NetworkInUse { vm_nics, .. }))
                if (1..=attaches.len()).contains(vm_nics) && attaches.iter().all(Result::is_ok) =>
            {
                attaches.len()
            }
            _ => panic!("both or neither succeeded: {delete:?}, {attaches:?}"),
        }
    }
}

#[tokio::test]
async fn network_deletion_and_vm_creation_exclude_each_other() {
    let folder = JournalFolder::new();
    let writer = RunningWriter::start(folder.open().await).await;
    writer.execute(join("node-1")).await.unwrap();
    let (mut deleted, mut attached, mut nics) = (0, 0, 0);
    for first in (0..RACES).step_by(AT_ONCE) {
        let creates: Vec<CommandRequest> = (first..first + AT_ONCE).map(|n| create(&format!("net-{n}"))).collect();
        let networks: Vec<NetworkId> = creates.iter().map(network_of).collect();
        for created in join_all(creates.into_iter().map(|create| writer.execute(create))).await {
            created.unwrap();
        }
        let races: Vec<Race> =
            networks.into_iter().zip(first..).map(|(id, number)| Race::start(&writer, number, id)).collect();
        for race in races {
            match race.end().await {
                0 => deleted += 1,
                count => {
                    attached += 1;
                    nics += count;
                }
            }
        }
    }
    assert!(
        deleted > RACES / 100 && attached > RACES / 100,
        "one side always wins: {deleted} deleted, {attached} attached"
    );
    let journal = writer.stop().await;
    let state = replay(journal.as_ref()).await.unwrap().state;
    assert_eq!((state.live_networks().count(), state.vms().len()), (attached, nics));
    assert!(state.live_networks().all(|(network_id, _)| state.nics().count_of_network(network_id) > 0));
    // The stored events: no NIC is attached after its network's deletion.
    let wrong = folder.sql(
        "SELECT COUNT(*) FROM events AS attached JOIN events AS deleted
             ON deleted.type = 'dev.otherix.network.deleted.v1' AND deleted.position < attached.position
             AND deleted.stream_id = 'network/' || json_extract(attached.body, '$.data.network_id')
         WHERE attached.type = 'dev.otherix.nic.attached.v2'",
    );
    assert_eq!(wrong.trim(), "0");
}
