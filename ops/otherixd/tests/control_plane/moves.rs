//! Moves of VMs end to end, with nodes that only report: what follows from their reports, and what views show.

use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{
    DeleteNode, GetNode, JoinAnswer, JoinNode, JoinRequest, MeshOffer, NodeById, NodeReport, NodeView, RemovedNodeView,
    ReportNode, ReportReceipt,
};
use otherix_schemas::outcome::{Outcome, OutcomeStatus, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Request, RequestType};
use otherix_schemas::value::MeshPublicKey;
use otherix_schemas::vm::{
    CancelVmMove, CreateVm, DeleteVm, GetVm, MachineDraft, MachinePhase, MachineStatus, MoveVm, Shutdown, StopVm,
    VmById, VmDraft, VmMove, VmView,
};
use otherix_transport::Nats;
use serde::Serialize;
use uuid::Uuid;

use super::daemon::{OtherixdProcess, call, create, draft};

const ONE: NodeId = NodeId::new(Uuid::from_u128(7));
const TWO: NodeId = NodeId::new(Uuid::from_u128(8));

/// A cluster of two nodes of the mesh.
struct Cluster {
    daemon: OtherixdProcess,
    admin: Nats,
    nodes: [(NodeId, Nats); 2],
}

impl Cluster {
    async fn start() -> Self {
        let daemon = OtherixdProcess::start().await;
        let admin = daemon.connect("admin").await;
        let nodes = [(ONE, daemon.node(ONE, "node-1").await), (TWO, daemon.node(TWO, "node-2").await)];
        for (number, (node_id, node)) in (1..).zip(&nodes) {
            let public_key = MeshPublicKey::try_from([number; 32]).unwrap();
            let endpoint = format!("192.0.2.{number}:51820").parse().unwrap();
            let (mesh, name) = (Some(MeshOffer { public_key, endpoint }), format!("node-{number}").parse().unwrap());
            let body = JoinRequest { node_id: *node_id, name, mesh, arch: None };
            call::<JoinAnswer>(node, Request::of::<JoinNode>(), &body, None).await.unwrap();
        }
        Self { daemon, admin, nodes }
    }

    /// A VM with a machine and a NIC on the first node.
    async fn vm(&self) -> VmView {
        let network = create(&self.admin, &draft("net-dev", "br-dev")).await;
        let body = VmDraft {
            name: "vm-1".to_owned(),
            image_url: Some("https://images.example/debian-12.qcow2".to_owned()),
            arch: Some("amd64".to_owned()),
            network_id: Some(network.id.to_string()),
            ip: None,
            node_id: Some(ONE.to_string()),
            machine: Some(MachineDraft::default()),
            description: None,
            labels: None,
        };
        self.asked::<CreateVm>(&body).await.unwrap()
    }

    async fn asked<R: RequestType<Answer = VmView>>(
        &self,
        body: &(impl Serialize + Sync),
    ) -> Result<VmView, ErrorBody> {
        Ok(call::<VmView>(&self.admin, Request::of::<R>(), body, None).await?.data)
    }

    /// Moves the VM to the other node.
    async fn moving(&self, vm: &VmView, to: NodeId) -> Result<VmView, ErrorBody> {
        self.asked::<MoveVm>(&VmMove { id: vm.id, node_id: Some(to), timeout_s: None }).await
    }

    async fn get(&self, vm: &VmView) -> Option<VmView> {
        match self.asked::<GetVm>(&VmById { id: vm.id }).await {
            Ok(view) => Some(view),
            Err(refusal) if refusal.error.code == ErrorCode::NotFound => None,
            Err(refusal) => panic!("{refusal}"),
        }
    }

    /// A node reports on the VM's machine.
    async fn says(&self, (id, sequence): (NodeId, u64), vm: &VmView, generation: Position, outcome: Outcome) {
        let (node_id, node) = self.nodes.iter().find(|(node, _)| *node == id).unwrap();
        let phase = if outcome == Outcome::Removed { MachinePhase::Removed } else { MachinePhase::Stopped };
        let machine = Some(MachineStatus { phase, started_at: None, last_line: None });
        let resource = ResourceRef::Vm(vm.id);
        let results = vec![ResourceOutcome { machine, ..ResourceOutcome::new(resource, generation, outcome) }];
        let body = NodeReport { node_id: *node_id, incarnation: 1, sequence, results };
        let receipt: Answer<ReportReceipt> = call(node, Request::of::<ReportNode>(), &body, None).await.unwrap();
        assert_eq!(receipt.data.unknown, []);
    }

    async fn node(&self, id: NodeId) -> NodeView {
        call::<NodeView>(&self.admin, Request::of::<GetNode>(), &NodeById { id }, None).await.unwrap().data
    }
}

#[tokio::test]
async fn a_vm_moves_when_its_new_node_has_the_disk() {
    let cluster = Cluster::start().await;
    let vm = cluster.vm().await;
    let started = cluster.moving(&vm, TWO).await.unwrap();
    let (moving, generation) = (started.moving.clone().unwrap(), started.generation);
    assert_eq!((moving.node_id, moving.node_name.as_str(), moving.progress), (TWO, "node-2", None));
    let seen = cluster.get(&vm).await.unwrap();
    assert_eq!((seen.node_id, seen.status, &seen.moving), (ONE, OutcomeStatus::Pending, &started.moving));
    assert_eq!(seen.error.as_deref(), Some("moving to node `node-2`: shutting down"));
    let stop = Shutdown { id: vm.id, timeout_s: None };
    assert_eq!(cluster.asked::<StopVm>(&stop).await.unwrap_err().error.code, ErrorCode::Conflict);
    let body = NodeById { id: TWO };
    let removal = call::<RemovedNodeView>(&cluster.admin, Request::of::<DeleteNode>(), &body, None).await;
    assert_eq!(removal.unwrap_err().error.code, ErrorCode::Conflict);

    cluster.says((ONE, 1), &vm, generation, Outcome::Ready).await;
    let text = "copying its disk, 3 of 7 MiB".to_owned();
    cluster.says((TWO, 1), &vm, generation, Outcome::Pending(text.clone())).await;
    let seen = cluster.get(&vm).await.unwrap();
    assert_eq!((seen.node_id, seen.moving.unwrap().progress), (ONE, Some(text)));
    assert_eq!(seen.error.as_deref(), Some("moving to node `node-2`: copying its disk, 3 of 7 MiB"));

    cluster.says((TWO, 2), &vm, generation, Outcome::Ready).await;
    let moved = cluster.get(&vm).await.unwrap();
    assert_eq!((moved.node_id, moved.node_name.as_str(), &moved.moving), (TWO, "node-2", &None));
    let [nic, before] = [&moved, &vm].map(|vm| vm.nic.clone().unwrap());
    assert_eq!((nic.id, nic.mac, nic.tap, nic.observed_generation), (before.id, before.mac, before.tap, None));
    assert!(moved.warnings.iter().any(|warning| warning.contains("`node-1`")), "{:?}", moved.warnings);
    assert_eq!([cluster.node(ONE).await, cluster.node(TWO).await].map(|node| (node.vms, node.nics)), [(0, 0), (1, 1)]);
    let refused = cluster.moving(&vm, ONE).await.unwrap_err().error;
    assert!(refused.message.contains("yet to remove an earlier copy"), "{}", refused.message);
    cluster.says((ONE, 2), &vm, moved.generation, Outcome::Removed).await;
    assert_eq!(cluster.get(&vm).await.unwrap().warnings, Vec::<String>::new());
    assert!(cluster.moving(&vm, ONE).await.is_ok());
    // Both nodes remove it.
    let deleted = cluster.asked::<DeleteVm>(&VmById { id: vm.id }).await.unwrap();
    let machine = deleted.generation;
    cluster.says((TWO, 3), &vm, machine, Outcome::Removed).await;
    let (node_id, node) = &cluster.nodes[1];
    let results =
        vec![ResourceOutcome::new(ResourceRef::Nic(nic.id), deleted.nic.unwrap().generation, Outcome::Removed)];
    let body = NodeReport { node_id: *node_id, incarnation: 1, sequence: 4, results };
    call::<ReportReceipt>(node, Request::of::<ReportNode>(), &body, None).await.unwrap();
    assert!(cluster.get(&vm).await.is_some(), "the other node has yet to remove its copy");
    cluster.says((ONE, 3), &vm, machine, Outcome::Removed).await;
    assert_eq!(cluster.get(&vm).await, None);
    cluster.daemon.assert_stream_is_copy().await;
}

#[tokio::test]
async fn a_vm_that_cannot_be_moved_stays_and_says_why() {
    let cluster = Cluster::start().await;
    let vm = cluster.vm().await;
    let started = cluster.moving(&vm, TWO).await.unwrap();
    cluster.says((TWO, 1), &vm, started.generation, Outcome::Failed("the disk is full".to_owned())).await;
    let seen = cluster.get(&vm).await.unwrap();
    assert_eq!((seen.node_id, &seen.moving), (ONE, &None));
    assert!(seen.warnings.contains(&"it was not moved to node `node-2`: the disk is full".to_owned()));
    // That it has removed its part, it says of the decision that ended the move.
    cluster.says((TWO, 2), &vm, seen.generation, Outcome::Removed).await;
    let again = cluster.moving(&vm, TWO).await.unwrap();
    assert_eq!(cluster.get(&vm).await.unwrap().warnings, Vec::<String>::new());
    let cancelled = cluster.asked::<CancelVmMove>(&VmById { id: vm.id }).await.unwrap();
    assert_eq!((cancelled.node_id, &cancelled.moving), (ONE, &None));
    // Too late.
    cluster.says((TWO, 3), &vm, again.generation, Outcome::Ready).await;
    assert_eq!(cluster.get(&vm).await.unwrap().node_id, ONE);
    let refused = cluster.asked::<CancelVmMove>(&VmById { id: vm.id }).await.unwrap_err().error;
    assert_eq!(
        (refused.code, &*refused.message),
        (ErrorCode::Conflict, "VM `vm-1` does not move: it is on node `node-1`")
    );
    cluster.daemon.assert_stream_is_copy().await;
}
