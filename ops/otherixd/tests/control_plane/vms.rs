//! VMs end to end: creation, reported status and removal; a network cannot be deleted while a VM uses it.

use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::NodeId;
use otherix_schemas::network::{DeleteNetwork, NetworkById, NetworkView};
use otherix_schemas::node::{
    GetNode, JoinAnswer, JoinNode, JoinRequest, NodeById, NodeReport, NodeView, ReportNode, ReportReceipt,
};
use otherix_schemas::outcome::{Outcome, OutcomeStatus, ResourceOutcome, ResourceRef};
use otherix_schemas::request::{Answer, ByName, PageRequest, Request};
use otherix_schemas::vm::{Arch, CreateVm, DeleteVm, FindVm, GetVm, ListVms, VmById, VmDraft, VmView};
use otherix_transport::Nats;
use uuid::Uuid;

use super::daemon::{OtherixdProcess, call, create, draft};

const NODE: NodeId = NodeId::new(Uuid::from_u128(7));

async fn join(node: &Nats) {
    let body = JoinRequest { node_id: NODE, name: "node-1".parse().unwrap(), mesh: None, arch: None };
    call::<JoinAnswer>(node, Request::of::<JoinNode>(), &body, Some("join")).await.unwrap();
}

fn vm(name: &str, network: Option<&NetworkView>) -> VmDraft {
    VmDraft {
        name: name.to_owned(),
        image_url: Some("https://images.example/debian-12.qcow2".to_owned()),
        arch: Some("amd64".to_owned()),
        network_id: network.map(|network| network.id.to_string()),
        ip: None,
        node_id: None,
        machine: None,
        ..VmDraft::default()
    }
}

async fn report(node: &Nats, sequence: u64, results: Vec<ResourceOutcome>) -> ReportReceipt {
    let body = NodeReport { node_id: NODE, incarnation: 1, sequence, results };
    call(node, Request::of::<ReportNode>(), &body, None).await.unwrap().data
}

async fn get(admin: &Nats, vm: &VmView) -> Option<VmView> {
    match call(admin, Request::of::<GetVm>(), &VmById { id: vm.id }, None).await {
        Ok(answer) => Some(answer.data),
        Err(refusal) if refusal.error.code == ErrorCode::NotFound => None,
        Err(refusal) => panic!("{refusal}"),
    }
}

#[tokio::test]
async fn a_vm_of_another_architecture_is_refused_and_an_earlier_one_has_failed() {
    let daemon = OtherixdProcess::start().await;
    let (admin, node) = (daemon.connect("admin").await, daemon.node(NODE, "node-1").await);
    join(&node).await;
    let network = create(&admin, &draft("net-dev", "br-dev")).await;
    // An agent of an earlier version has not told its architecture.
    let create_vm = async |vm: &VmDraft| call::<VmView>(&admin, Request::of::<CreateVm>(), vm, None).await;
    let on_arm64 = |name: &str, network| VmDraft { arch: Some("arm64".to_owned()), ..vm(name, network) };
    let without_nic = create_vm(&on_arm64("vm-1", None)).await.unwrap().data;
    let with_nic = create_vm(&on_arm64("vm-2", Some(&network))).await.unwrap().data;
    let nic = with_nic.nic.clone().unwrap();
    report(&node, 1, vec![ResourceOutcome::new(ResourceRef::Nic(nic.id), nic.generation, Outcome::Ready)]).await;
    for vm in [&without_nic, &with_nic] {
        assert_eq!(get(&admin, vm).await.unwrap().status, OutcomeStatus::Ready);
    }

    let body = JoinRequest { node_id: NODE, name: "node-1".parse().unwrap(), mesh: None, arch: Some(Arch::Amd64) };
    for _ in 0..2 {
        call::<JoinAnswer>(&node, Request::of::<JoinNode>(), &body, None).await.unwrap();
    }
    for vm in [&without_nic, &with_nic] {
        let failed = get(&admin, vm).await.unwrap();
        let error = failed.error.unwrap();
        assert_eq!(failed.status, OutcomeStatus::Failed);
        assert!(error.contains("`node-1`: the VM is for arm64, and the node is amd64"), "{error}");
    }
    let shown: Answer<NodeView> = call(&admin, Request::of::<GetNode>(), &NodeById { id: NODE }, None).await.unwrap();
    assert_eq!(shown.data.arch, Some(Arch::Amd64));
    let refused = create_vm(&on_arm64("vm-3", None)).await.unwrap_err().error;
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.message.contains("arm64"), "{}", refused.message);
    let ready = create_vm(&vm("vm-3", None)).await.unwrap().data;
    assert_eq!(ready.status, OutcomeStatus::Ready);
    // Deleted VMs are not about to run.
    call::<VmView>(&admin, Request::of::<DeleteVm>(), &VmById { id: with_nic.id }, None).await.unwrap();
    assert_eq!(get(&admin, &with_nic).await.unwrap().status, OutcomeStatus::Pending);
    daemon.assert_stream_is_copy().await;
}

#[tokio::test]
async fn vm_is_created_reported_and_removed() {
    let daemon = OtherixdProcess::start().await;
    let (admin, node) = (daemon.connect("admin").await, daemon.node(NODE, "node-1").await);
    join(&node).await;
    let network = create(&admin, &draft("net-dev", "br-dev")).await;

    let draft = vm("vm-1", Some(&network));
    let created: VmView = call(&admin, Request::of::<CreateVm>(), &draft, Some("vm-1")).await.unwrap().data;
    let repeated: VmView = call(&admin, Request::of::<CreateVm>(), &draft, Some("vm-1")).await.unwrap().data;
    assert_eq!(repeated, created, "the same key returns the same VM");
    let nic = created.nic.clone().unwrap();
    assert_eq!((created.node_id, created.status), (NODE, OutcomeStatus::Pending));
    assert_eq!(nic.tap, format!("ot{}", &nic.id.uuid().as_simple().to_string()[..12]));
    assert!(nic.mac.to_string().starts_with("52:54:00:"), "{}", nic.mac);
    let seen = get(&admin, &created).await.unwrap();
    assert_eq!((&seen.nic, seen.generation), (&created.nic, created.generation));

    let refused =
        call::<NetworkView>(&admin, Request::of::<DeleteNetwork>(), &NetworkById { id: network.id }, None).await;
    let refused = refused.unwrap_err().error;
    assert_eq!((refused.code, refused.details["vm_nics"].as_u64()), (ErrorCode::Conflict, Some(1)));

    let outcome = |generation, outcome| vec![ResourceOutcome::new(ResourceRef::Nic(nic.id), generation, outcome)];
    assert_eq!(report(&node, 1, outcome(nic.generation, Outcome::Failed("no tap".to_owned()))).await.unknown, []);
    let failed = get(&admin, &created).await.unwrap();
    assert_eq!((failed.status, failed.error.as_deref()), (OutcomeStatus::Failed, Some("no tap")));
    report(&node, 2, outcome(nic.generation, Outcome::Ready)).await;
    let by_name = ByName { name: "VM-1".to_owned() };
    let ready: Answer<VmView> = call(&admin, Request::of::<FindVm>(), &by_name, None).await.unwrap();
    assert_eq!((ready.data.status, ready.data.error), (OutcomeStatus::Ready, None));
    let shown: Answer<NodeView> = call(&admin, Request::of::<GetNode>(), &NodeById { id: NODE }, None).await.unwrap();
    assert_eq!((shown.data.vms, shown.data.nics, shown.data.reachable), (1, 1, true));

    let deleted: VmView =
        call(&admin, Request::of::<DeleteVm>(), &VmById { id: created.id }, Some("gone")).await.unwrap().data;
    assert!(deleted.deleted_at.is_some());
    let remaining: Answer<Vec<VmView>> =
        call(&admin, Request::of::<ListVms>(), &PageRequest::default(), None).await.unwrap();
    assert_eq!((remaining.data.len(), remaining.data[0].deleted_at), (1, deleted.deleted_at));
    assert!(get(&admin, &created).await.unwrap().deleted_at.is_some(), "readable until its node has removed it");
    let removal = deleted.nic.unwrap().generation;
    report(&node, 3, outcome(removal, Outcome::Removed)).await;
    assert_eq!(get(&admin, &created).await, None);
    call::<NetworkView>(&admin, Request::of::<DeleteNetwork>(), &NetworkById { id: network.id }, None).await.unwrap();
    // joined, network, VM with NIC and node, failed, ready, detached and deleted, removed, network deleted
    assert_eq!(daemon.assert_stream_is_copy().await, 11);
}

#[tokio::test]
async fn rejected_vm_leaves_nothing() {
    let daemon = OtherixdProcess::start().await;
    let (admin, node) = (daemon.connect("admin").await, daemon.node(NODE, "node-1").await);
    let code = async |connection: &Nats, draft: &VmDraft| {
        call::<VmView>(connection, Request::of::<CreateVm>(), draft, None).await.unwrap_err().error.code
    };
    assert_eq!(code(&admin, &vm("vm-1", None)).await, ErrorCode::Conflict, "there is no node");
    join(&node).await;
    let network = create(&admin, &draft("net-dev", "br-dev")).await;
    let unknown_network = VmDraft { network_id: Some(Uuid::from_u128(9).to_string()), ..vm("vm-1", None) };
    assert_eq!(code(&admin, &unknown_network).await, ErrorCode::NotFound);
    let unknown_node = VmDraft { node_id: Some(Uuid::from_u128(9).to_string()), ..vm("vm-1", Some(&network)) };
    assert_eq!(code(&admin, &unknown_node).await, ErrorCode::NotFound);
    let incomplete = VmDraft { name: "vm-1".to_owned(), ..VmDraft::default() };
    assert_eq!(code(&admin, &incomplete).await, ErrorCode::ValidationFailed);
    assert_eq!(code(&node, &vm("vm-1", None)).await, ErrorCode::PermissionDenied);
    assert_eq!(daemon.assert_stream_is_copy().await, 2, "a refusal leaves no event");
}
