//! Promise of the writer: a network that is deleted while a VM is put on it has exactly one winner.

use futures::future::join_all;
use otherix_commands::domain::Rejection;
use otherix_commands::journal::load;
use otherix_commands::writer::{Ask, Refusal};
use otherix_schemas::command::{Command, DrawnNic};
use otherix_schemas::id::{NetworkId, NicId, VmId};
use otherix_schemas::vm::{Arch, NewVm};
use uuid::Uuid;

use super::support::{Place, Running, ask, create, join};

const RACES: usize = 10_000;

/// Races at the same time: as many as share a few batches.
const AT_ONCE: usize = 250;

fn network_of(create: &Ask) -> NetworkId {
    let Command::CreateNetwork { network_id, .. } = &create.command else { panic!("not a network") };
    *network_id
}

fn attach(number: usize, network_id: NetworkId) -> Ask {
    let vm = NewVm {
        name: format!("vm-{number}").parse().unwrap(),
        image_url: "https://images.example/a".parse().unwrap(),
        arch: Arch::Amd64,
        network_id: Some(network_id),
        node_id: None,
    };
    let nic = DrawnNic { nic_id: NicId::new(Uuid::new_v4()), mac: 0 };
    ask(Command::CreateVm { vm_id: VmId::new(Uuid::now_v7()), nic, vm })
}

#[tokio::test]
async fn deleting_a_network_and_putting_a_vm_on_it_has_one_winner() {
    let place = Place::new();
    let lab = Running::start(place.open().await).await;
    lab.ask(join("node-1")).await.unwrap();
    let (mut deleted, mut attached) = (0, 0);
    for first in (0..RACES).step_by(AT_ONCE) {
        let creates: Vec<Ask> = (first..first + AT_ONCE).map(|n| create(&format!("net-{n}"))).collect();
        let networks: Vec<NetworkId> = creates.iter().map(network_of).collect();
        for made in join_all(creates.into_iter().map(|create| lab.ask(create))).await {
            made.unwrap();
        }
        let racers = networks.iter().zip(first..).map(|(network_id, n)| {
            let delete = ask(Command::DeleteNetwork { network_id: *network_id });
            let attach = attach(n, *network_id);
            // Which of the two is asked first changes by chance, and so does when their tasks run.
            if Uuid::new_v4().as_u128() & 1 == 0 {
                let delete = lab.begin(delete);
                (delete, lab.begin(attach))
            } else {
                let attach = lab.begin(attach);
                (lab.begin(delete), attach)
            }
        });
        let racers: Vec<_> = racers.collect();
        for ((delete, attach), network_id) in racers.into_iter().zip(networks) {
            match (delete.await.unwrap(), attach.await.unwrap()) {
                (Ok(_), Err(Refusal::Rejected(Rejection::NoSuchNetwork(id)))) if id == network_id => deleted += 1,
                (Err(Refusal::Rejected(Rejection::NetworkInUse { vm_nics: 1, .. })), Ok(_)) => attached += 1,
                (delete, attach) => panic!("no winner, or two: {delete:?}, {attach:?}"),
            }
        }
    }
    assert!(deleted > RACES / 100 && attached > RACES / 100, "no races: {deleted} deleted, {attached} attached");
    let journal = lab.stop().await;
    let state = load(journal.as_ref()).await.unwrap().state;
    assert_eq!((state.live_networks().count(), state.vms().len()), (attached, attached));
    for (network_id, _) in state.live_networks() {
        assert_eq!(state.nics().count_of_network(network_id), 1);
    }
    // The events themselves, by another program: no NIC is attached behind its network's deletion.
    let wrong = place.sql(
        "SELECT COUNT(*) FROM events AS attached JOIN events AS deleted
             ON deleted.type = 'dev.otherix.network.deleted.v1' AND deleted.position < attached.position
             AND deleted.stream_id = 'network/' || json_extract(attached.body, '$.data.network_id')
         WHERE attached.type = 'dev.otherix.nic.attached.v1'",
    );
    assert_eq!(wrong.trim(), "0");
}
