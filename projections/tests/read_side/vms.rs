//! The read models of VMs and nodes: the decisions, and the statuses that the nodes last reported.

use otherix_projections::query::Page;
use otherix_projections::{network, node, vm};
use otherix_schemas::command::Command;
use otherix_schemas::id::VmId;
use otherix_schemas::network::NetworkCommand;
use otherix_schemas::outcome::{Outcome, OutcomeStatus, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::vm::VmView;
use otherix_testkit::tempdir;
use uuid::Uuid;

use super::support::{ReadSide, WriteSide, create_vm, delete_vm, id, join, nic_id, presence};

async fn vm(read: &ReadSide, write: &WriteSide, number: u128) -> Option<VmView> {
    read.reach(write.head()).await;
    vm::query::by_id(&read.db(), VmId::new(Uuid::from_u128(number))).unwrap()
}

fn nic_result(number: u128, generation: Position, outcome: Outcome) -> Vec<ResourceOutcome> {
    vec![ResourceOutcome::new(ResourceRef::Nic(nic_id(number)), generation, outcome)]
}

#[tokio::test]
async fn a_vm_has_the_status_of_its_nic_on_its_node() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    write.execute(join(1)).await;
    let network = write.create("net").await;
    write.execute(create_vm(1, "vm-1", Some(network))).await;
    let new = vm(&read, &write, 1).await.unwrap();
    let nic = new.nic.clone().unwrap();
    assert_eq!((nic.network_name.as_str(), nic.bridge_name.as_str()), ("net", "otb1000"));
    assert_eq!(new.status, OutcomeStatus::Pending);
    assert_eq!(new.error.as_deref(), Some(format!("waiting for node `node-1` to create tap `{}`", nic.tap).as_str()));
    write.execute(presence(&[1], &[])).await;
    let unreachable = vm(&read, &write, 1).await.unwrap();
    assert!(
        !unreachable.node_reachable && unreachable.error.unwrap().contains("`node-1`, which is unreachable, to create")
    );

    let mut warned = nic_result(1, nic.generation, Outcome::Ready);
    warned[0].warnings = vec!["a foreign firewall".to_owned()];
    write.report_all(1, warned).await;
    let ready = vm(&read, &write, 1).await.unwrap();
    assert_eq!((ready.status, ready.error, ready.node_reachable), (OutcomeStatus::Ready, None, true));
    assert_eq!(ready.warnings, ["a foreign firewall"]);
    assert_eq!(ready.nic.unwrap().observed_generation, Some(nic.generation));

    write.execute(delete_vm(new.id)).await;
    let deleted = vm(&read, &write, 1).await.unwrap();
    assert_eq!((deleted.status, deleted.deleted_at.is_some()), (OutcomeStatus::Pending, true));
    assert!(deleted.error.unwrap().starts_with("waiting for node `node-1` to remove tap"));
    let (by_name, all) = (vm::query::by_name(&read.db(), &new.name), Page { limit: 9, after: Position::ZERO });
    assert!(by_name.unwrap().unwrap().deleted_at.is_some());
    assert_eq!(vm::query::list(&read.db(), all).unwrap().views.len(), 1);
    let generation = deleted.nic.unwrap().generation;
    // The network may be removed before the tap is.
    write.execute(Command::Network(NetworkCommand::Delete { network_id: network })).await;
    write.report(1, network, write.head(), Outcome::Removed).await;
    assert_eq!(vm(&read, &write, 1).await.unwrap().nic.unwrap().network_name.as_str(), "net");
    write.report_all(1, nic_result(1, generation, Outcome::Removed)).await;
    assert_eq!(vm(&read, &write, 1).await, None);
    assert_eq!(read.sql("SELECT (SELECT COUNT(*) FROM vms), (SELECT COUNT(*) FROM nics)").trim(), "0|0");
}

#[tokio::test]
async fn a_deleted_vm_is_kept_until_its_own_tap_is_removed() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for node in [1, 2] {
        write.execute(join(node)).await;
    }
    let network = write.create("net").await;
    let mut deleted_vms = Vec::new();
    for number in [1, 2] {
        write.execute(create_vm(number, &format!("vm-{number}"), Some(network))).await;
        let view = vm(&read, &write, number).await.unwrap();
        write.execute(delete_vm(view.id)).await;
        let deleted = vm(&read, &write, number).await.unwrap();
        deleted_vms.push((view.node_name.to_string(), deleted.nic.unwrap().generation));
    }
    // A detached NIC no longer counts as load, so both were placed on the first node.
    assert_eq!((deleted_vms[0].0.as_str(), deleted_vms[1].0.as_str()), ("node-1", "node-1"));
    write.report_all(1, nic_result(2, deleted_vms[1].1, Outcome::Removed)).await;
    assert!(vm(&read, &write, 1).await.is_some());
    assert_eq!(vm(&read, &write, 2).await, None);
    write.report_all(1, nic_result(1, deleted_vms[0].1, Outcome::Removed)).await;
    assert_eq!(vm(&read, &write, 1).await, None);
    assert_eq!(read.sql("SELECT (SELECT COUNT(*) FROM vms), (SELECT COUNT(*) FROM nics)").trim(), "0|0");
}

#[tokio::test]
async fn a_vm_without_a_nic_is_ready_and_removed_at_once() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    write.execute(join(1)).await;
    write.execute(create_vm(1, "VM-1", None)).await;
    let view = vm(&read, &write, 1).await.unwrap();
    assert_eq!((view.status, &view.nic), (OutcomeStatus::Ready, &None));
    let db = read.db();
    assert_eq!(vm::query::by_name(&db, &"vm-1".parse().unwrap()).unwrap(), Some(view.clone()));
    write.execute(delete_vm(view.id)).await;
    assert_eq!(vm(&read, &write, 1).await, None);
}

#[tokio::test]
async fn vms_are_listed_in_the_order_of_creation_while_some_are_deleted() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    write.execute(join(1)).await;
    for number in 1..=9 {
        write.execute(create_vm(number, &format!("vm-{number}"), None)).await;
    }
    let db = read.db();
    let page = async |after| {
        read.reach(write.head()).await;
        let listed = vm::query::list(&db, Page { limit: 4, after }).unwrap();
        (listed.views.iter().map(|view| view.name.to_string()).collect::<Vec<_>>(), listed.next())
    };
    let (first, next) = page(Position::ZERO).await;
    assert_eq!(first, ["vm-1", "vm-2", "vm-3", "vm-4"]);
    for number in [4, 6] {
        write.execute(delete_vm(VmId::new(Uuid::from_u128(number)))).await;
    }
    let (second, next) = page(next.unwrap()).await;
    assert_eq!(second, ["vm-5", "vm-7", "vm-8", "vm-9"]);
    assert_eq!(next, None);
}

#[tokio::test]
async fn a_node_shows_its_vms_nics_and_networks() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for node in [1, 2] {
        write.execute(join(node)).await;
    }
    let mut networks = Vec::new();
    for name in ["c", "B", "a"] {
        networks.push((write.create(name).await, write.head()));
    }
    let [(c, c_at), (b, b_at), (_, _)] = networks[..] else { panic!() };
    write.execute(create_vm(1, "vm-1", Some(c))).await;
    write.execute(create_vm(2, "vm-2", Some(c))).await;
    write.execute(create_vm(3, "vm-3", None)).await;
    write.report(1, c, c_at, Outcome::Ready).await;
    let mut failed = ResourceOutcome::new(ResourceRef::Network(b), b_at, Outcome::Failed("no".to_owned()));
    failed.warnings = vec!["bridge-nf-call-iptables is on".to_owned()];
    write.report_all(1, vec![failed]).await;
    read.reach(write.head()).await;

    let db = read.db();
    let one = node::query::by_name(&db, &"NODE-1".parse().unwrap()).unwrap().unwrap();
    assert_eq!((one.vms, one.nics, one.reachable), (2, 1, true));
    let counts = one.network_counts;
    assert_eq!((counts.ready, counts.pending, counts.failed), (1, 1, 1));
    let shown: Vec<_> =
        one.networks.unwrap().into_iter().map(|on| (on.network_name.to_string(), on.status, on.error)).collect();
    let expected = [("B", OutcomeStatus::Failed, Some("no")), ("c", OutcomeStatus::Ready, None)];
    assert_eq!(shown, expected.map(|(name, status, error)| (name.to_owned(), status, error.map(str::to_owned))));
    let warned = network::query::by_id(&db, b).unwrap().unwrap();
    assert_eq!(warned.status.warnings, ["on node-1: bridge-nf-call-iptables is on"]);
    write.execute(presence(&[2], &[])).await;
    read.reach(write.head()).await;
    let all = node::query::list(&db, Page { limit: 20, after: Position::ZERO }).unwrap().views;
    let short: Vec<_> =
        all.iter().map(|node| (node.name.as_str(), node.reachable, node.network_counts.pending)).collect();
    assert_eq!(short, [("node-1", true, 1), ("node-2", false, 3)]);
    assert!(all.iter().all(|node| node.networks.is_none()));
    assert!(all[1].reachable_since > all[1].joined_at);
    assert_eq!(node::query::by_id(&db, id(9)).unwrap(), None);
}
