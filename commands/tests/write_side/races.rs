//! Promise of the writer: when a network is deleted while VMs are put on it, either it goes and they do not come, or
//! they come and it stays.

use std::ops::Range;

use bytes::Bytes;
use futures::future::join_all;
use otherix_commands::domain::Rejection;
use otherix_commands::store::{EventStore, replay};
use otherix_commands::writer::{CommandRequest, Refusal};
use otherix_schemas::command::Command;
use otherix_schemas::id::{NetworkId, NicId, VmId};
use otherix_schemas::network::NetworkCommand;
use otherix_schemas::nic::GeneratedNic;
use otherix_schemas::vm::{Arch, NewVm, VmCommand};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::support::{Place, Running, ask, create, join};

const RACES: usize = 10_000;

/// Races at the same time: as many as share a few batches.
const AT_ONCE: usize = 250;

/// VMs that are put on a network while it is deleted: one to so many.
const RIVALS_MAX: usize = 3;

fn network_of(create: &CommandRequest) -> NetworkId {
    let Command::Network(NetworkCommand::Create { network_id, .. }) = &create.command else { panic!("not a network") };
    *network_id
}

fn attach(number: usize, network_id: NetworkId) -> CommandRequest {
    let vm = NewVm {
        name: format!("vm-{number}").parse().unwrap(),
        image_url: "https://images.example/a".parse().unwrap(),
        arch: Arch::Amd64,
        network_id: Some(network_id),
        node_id: None,
    };
    let nic = GeneratedNic { nic_id: NicId::new(Uuid::new_v4()), mac: chance() };
    ask(Command::Vm(VmCommand::Create { vm_id: VmId::new(Uuid::now_v7()), nic, vm }))
}

fn chance() -> u32 {
    let [a, b, c, d, ..] = Uuid::new_v4().into_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// A race that is on.
struct Race {
    network_id: NetworkId,
    delete: JoinHandle<Result<Bytes, Refusal>>,
    attaches: Vec<JoinHandle<Result<Bytes, Refusal>>>,
}

impl Race {
    /// Which of them is asked first is chance, and so is when their tasks run.
    fn start<J: EventStore>(lab: &Running<J>, number: usize, network_id: NetworkId) -> Self {
        let rivals = chance() as usize % RIVALS_MAX + 1;
        let place = chance() as usize % (rivals + 1);
        let begin = |rivals: Range<usize>| {
            let attach = |rival| lab.begin(attach(number * RIVALS_MAX + rival, network_id));
            rivals.map(attach).collect::<Vec<_>>()
        };
        let mut attaches = begin(0..place);
        let delete = lab.begin(ask(Command::Network(NetworkCommand::Delete { network_id })));
        attaches.extend(begin(place..rivals));
        Self { network_id, delete, attaches }
    }

    /// How many NICs there are; none when the deletion has won.
    async fn end(self) -> usize {
        let Self { network_id, delete, attaches } = self;
        let delete = delete.await.unwrap();
        let attaches: Vec<_> = join_all(attaches).await.into_iter().map(Result::unwrap).collect();
        let came_late = |attach: &Result<Bytes, Refusal>| match attach {
            Err(Refusal::Rejected(Rejection::NoSuchNetwork(id))) => *id == network_id,
            Ok(_) | Err(_) => false,
        };
        match &delete {
            Ok(_) if attaches.iter().all(came_late) => 0,
            Err(Refusal::Rejected(Rejection::NetworkInUse { vm_nics, .. }))
                if (1..=attaches.len()).contains(vm_nics) && attaches.iter().all(Result::is_ok) =>
            {
                attaches.len()
            }
            _ => panic!("no winner, or two: {delete:?}, {attaches:?}"),
        }
    }
}

#[tokio::test]
async fn network_deletion_and_vm_creation_exclude_each_other() {
    let place = Place::new();
    let lab = Running::start(place.open().await).await;
    lab.execute(join("node-1")).await.unwrap();
    let (mut deleted, mut attached, mut nics) = (0, 0, 0);
    for first in (0..RACES).step_by(AT_ONCE) {
        let creates: Vec<CommandRequest> = (first..first + AT_ONCE).map(|n| create(&format!("net-{n}"))).collect();
        let networks: Vec<NetworkId> = creates.iter().map(network_of).collect();
        for made in join_all(creates.into_iter().map(|create| lab.execute(create))).await {
            made.unwrap();
        }
        let races: Vec<Race> =
            networks.into_iter().zip(first..).map(|(id, number)| Race::start(&lab, number, id)).collect();
        for race in races {
            match race.end().await {
                0 => deleted += 1,
                some => {
                    attached += 1;
                    nics += some;
                }
            }
        }
    }
    assert!(deleted > RACES / 100 && attached > RACES / 100, "no races: {deleted} deleted, {attached} attached");
    let journal = lab.stop().await;
    let state = replay(journal.as_ref()).await.unwrap().state;
    assert_eq!((state.live_networks().count(), state.vms().len()), (attached, nics));
    assert!(state.live_networks().all(|(network_id, _)| state.nics().count_of_network(network_id) > 0));
    // The events themselves, by another program: no NIC is attached behind its network's deletion.
    let wrong = place.sql(
        "SELECT COUNT(*) FROM events AS attached JOIN events AS deleted
             ON deleted.type = 'dev.otherix.network.deleted.v1' AND deleted.position < attached.position
             AND deleted.stream_id = 'network/' || json_extract(attached.body, '$.data.network_id')
         WHERE attached.type = 'dev.otherix.nic.attached.v1'",
    );
    assert_eq!(wrong.trim(), "0");
}
