//! Promises of the read models of VMs and nodes: they show what is decided and what the nodes last said of it.

use otherix_projections::query::Page;
use otherix_projections::{network, node, vm};
use otherix_schemas::command::Command;
use otherix_schemas::id::VmId;
use otherix_schemas::network::NetworkCommand;
use otherix_schemas::outcome::{Outcome, OutcomeStatus, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::vm::{VmCommand, VmView};
use otherix_testkit::tempdir;
use uuid::Uuid;

use super::support::{ReadSide, WriteSide, create_vm, id, join, nic_id, presence};

async fn vm(read: &ReadSide, write: &WriteSide, number: u128) -> Option<VmView> {
    read.reach(write.head()).await;
    vm::query::by_id(&read.db(), VmId::new(Uuid::from_u128(number))).unwrap()
}

fn said(number: u128, generation: Position, outcome: Outcome) -> Vec<ResourceOutcome> {
    vec![ResourceOutcome::new(ResourceRef::Nic(nic_id(number)), generation, outcome)]
}

#[tokio::test]
async fn a_vm_fares_as_its_nic_does_on_its_node() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    write.ask(join(1)).await;
    let network = write.create("net").await;
    write.ask(create_vm(1, "vm-1", Some(network))).await;
    let new = vm(&read, &write, 1).await.unwrap();
    let nic = new.nic.clone().unwrap();
    assert_eq!((nic.network_name.as_str(), nic.bridge_name.as_str()), ("net", "otb1000"));
    assert_eq!(new.status, OutcomeStatus::Pending);
    assert_eq!(new.error.as_deref(), Some(format!("waiting for node `node-1` to create tap `{}`", nic.tap).as_str()));
    write.ask(presence(&[1], &[])).await;
    let lost = vm(&read, &write, 1).await.unwrap();
    assert!(!lost.node_reachable && lost.error.unwrap().contains("`node-1`, which is unreachable, to make"));

    let mut warned = said(1, nic.generation, Outcome::Ready);
    warned[0].warnings = vec!["a foreign firewall".to_owned()];
    write.say(1, warned).await;
    let ready = vm(&read, &write, 1).await.unwrap();
    assert_eq!((ready.status, ready.error, ready.node_reachable), (OutcomeStatus::Ready, None, true));
    assert_eq!(ready.warnings, ["a foreign firewall"]);
    assert_eq!(ready.nic.unwrap().observed_generation, Some(nic.generation));

    write.ask(Command::Vm(VmCommand::Delete { vm_id: new.id })).await;
    let deleted = vm(&read, &write, 1).await.unwrap();
    assert_eq!((deleted.status, deleted.deleted_at.is_some()), (OutcomeStatus::Pending, true));
    assert!(deleted.error.unwrap().starts_with("waiting for node `node-1` to remove tap"));
    let gone = deleted.nic.unwrap().generation;
    // The network may go before the tap has gone, and the name is free at once.
    write.ask(Command::Network(NetworkCommand::Delete { network_id: network })).await;
    write.report(1, network, write.head(), Outcome::Removed).await;
    assert_eq!(vm(&read, &write, 1).await.unwrap().nic.unwrap().network_name.as_str(), "net");
    write.say(1, said(1, gone, Outcome::Removed)).await;
    assert_eq!(vm(&read, &write, 1).await, None);
    assert_eq!(read.sql("SELECT (SELECT COUNT(*) FROM vms), (SELECT COUNT(*) FROM nics)").trim(), "0|0");
}

#[tokio::test]
async fn each_deleted_vm_goes_with_its_own_tap() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for node in [1, 2] {
        write.ask(join(node)).await;
    }
    let network = write.create("net").await;
    let mut places = Vec::new();
    for number in [1, 2] {
        write.ask(create_vm(number, &format!("vm-{number}"), Some(network))).await;
        let view = vm(&read, &write, number).await.unwrap();
        write.ask(Command::Vm(VmCommand::Delete { vm_id: view.id })).await;
        let deleted = vm(&read, &write, number).await.unwrap();
        places.push((view.node_name.to_string(), deleted.nic.unwrap().generation));
    }
    // A detached NIC counts no more: the second is put beside where the first was.
    assert_eq!((places[0].0.as_str(), places[1].0.as_str()), ("node-1", "node-1"));
    write.say(1, said(2, places[1].1, Outcome::Removed)).await;
    assert!(vm(&read, &write, 1).await.is_some());
    assert_eq!(vm(&read, &write, 2).await, None);
    write.say(1, said(1, places[0].1, Outcome::Removed)).await;
    assert_eq!(vm(&read, &write, 1).await, None);
    assert_eq!(read.sql("SELECT (SELECT COUNT(*) FROM vms), (SELECT COUNT(*) FROM nics)").trim(), "0|0");
}

#[tokio::test]
async fn a_vm_without_a_nic_is_ready_and_gone_at_once() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    write.ask(join(1)).await;
    write.ask(create_vm(1, "VM-1", None)).await;
    let view = vm(&read, &write, 1).await.unwrap();
    assert_eq!((view.status, &view.nic), (OutcomeStatus::Ready, &None));
    let db = read.db();
    assert_eq!(vm::query::by_name(&db, &"vm-1".parse().unwrap()).unwrap(), Some(view.clone()));
    write.ask(Command::Vm(VmCommand::Delete { vm_id: view.id })).await;
    assert_eq!(vm(&read, &write, 1).await, None);
}

#[tokio::test]
async fn vms_are_listed_in_the_order_of_their_creation_while_they_come_and_go() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    write.ask(join(1)).await;
    for number in 1..=9 {
        write.ask(create_vm(number, &format!("vm-{number}"), None)).await;
    }
    let db = read.db();
    let page = async |after| {
        read.reach(write.head()).await;
        let listed = vm::query::list(&db, Page { limit: 4, after }).unwrap();
        (listed.views.iter().map(|view| view.name.to_string()).collect::<Vec<_>>(), listed.next)
    };
    let (first, next) = page(Position::ZERO).await;
    assert_eq!(first, ["vm-1", "vm-2", "vm-3", "vm-4"]);
    for gone in [4, 6] {
        write.ask(Command::Vm(VmCommand::Delete { vm_id: VmId::new(Uuid::from_u128(gone)) })).await;
    }
    let (second, next) = page(next.unwrap()).await;
    assert_eq!(second, ["vm-5", "vm-7", "vm-8", "vm-9"]);
    assert_eq!(next, None);
}

#[tokio::test]
async fn a_node_shows_what_is_on_it() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for node in [1, 2] {
        write.ask(join(node)).await;
    }
    let mut networks = Vec::new();
    for name in ["c", "B", "a"] {
        networks.push((write.create(name).await, write.head()));
    }
    let [(c, c_at), (b, b_at), (_, _)] = networks[..] else { panic!() };
    write.ask(create_vm(1, "vm-1", Some(c))).await;
    write.ask(create_vm(2, "vm-2", Some(c))).await;
    write.ask(create_vm(3, "vm-3", None)).await;
    write.report(1, c, c_at, Outcome::Ready).await;
    let mut failed = ResourceOutcome::new(ResourceRef::Network(b), b_at, Outcome::Failed("no".to_owned()));
    failed.warnings = vec!["bridge-nf-call-iptables is on".to_owned()];
    write.say(1, vec![failed]).await;
    read.reach(write.head()).await;

    let db = read.db();
    let one = node::query::by_name(&db, &"NODE-1".parse().unwrap()).unwrap().unwrap();
    assert_eq!((one.vms, one.nics, one.reachable), (2, 1, true));
    let counts = one.network_counts;
    assert_eq!((counts.ready, counts.pending, counts.failed), (1, 1, 1));
    let shown: Vec<_> =
        one.networks.unwrap().into_iter().map(|on| (on.network_name.to_string(), on.status, on.error)).collect();
    let wanted = [("B", OutcomeStatus::Failed, Some("no")), ("c", OutcomeStatus::Ready, None)];
    assert_eq!(shown, wanted.map(|(name, status, error)| (name.to_owned(), status, error.map(str::to_owned))));
    let warned = network::query::by_id(&db, b).unwrap().unwrap();
    assert_eq!(warned.status.warnings, ["on node-1: bridge-nf-call-iptables is on"]);
    write.ask(presence(&[2], &[])).await;
    read.reach(write.head()).await;
    let all = node::query::list(&db, Page { limit: 20, after: Position::ZERO }).unwrap().views;
    let short: Vec<_> =
        all.iter().map(|node| (node.name.as_str(), node.reachable, node.network_counts.pending)).collect();
    assert_eq!(short, [("node-1", true, 1), ("node-2", false, 3)]);
    assert!(all.iter().all(|node| node.networks.is_none()));
    assert!(all[1].reachable_since > all[1].joined_at);
    assert_eq!(node::query::by_id(&db, id(9)).unwrap(), None);
}
