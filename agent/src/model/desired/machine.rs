//! The machines that VMs require of this node.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use otherix_schemas::id::{NicId, NodeId, VmId};
use otherix_schemas::nic::tap_name;
use otherix_schemas::position::Position;
use otherix_schemas::value::{ImageUrl, MacAddress, VmName};
use otherix_schemas::vm::{Arch, Instruction, Machine, Power, SHUTDOWN_S};
use serde::{Deserialize, Serialize};

use crate::model::cluster_view::ClusterView;
use crate::model::decided_vm::{DecidedVm, VmRole};

/// What a VM requires of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredVm {
    pub generation: Position,
    /// Absent if the VM is deleted or on another node: its process, its disk and its files are to be removed.
    pub machine: Option<DesiredMachine>,
    /// It moves between this node and another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<DesiredMove>,
}

/// What this node does for a VM that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredMove {
    /// It shuts the VM down, and gives its disk to the other node.
    Give(MeshPair),
    /// It takes its disk from the other node, and runs nothing.
    Take(MeshPair),
}

/// The mesh addresses of this node and another; absent while one of them is not part of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshPair {
    pub own: Option<Ipv4Addr>,
    pub other: Option<Ipv4Addr>,
}

/// What this node is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredMachine {
    pub name: VmName,
    pub image_url: ImageUrl,
    pub arch: Arch,
    pub spec: Machine,
    pub power: Power,
    /// How long the guest may take to shut down, in seconds.
    pub shutdown_s: u32,
    /// The last decision was to begin anew.
    pub restart: Option<Restart>,
    pub nic: Option<MachineNic>,
}

/// How a machine is to begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// The guest shuts down first.
    Reboot,
    /// The guest is not asked.
    Reset,
}

/// The NIC of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineNic {
    pub id: NicId,
    pub mac: MacAddress,
    pub tap: String,
}

/// The VMs of `node`.
pub(super) fn desired(view: &ClusterView, node: NodeId) -> BTreeMap<VmId, DesiredVm> {
    let attached = view.nics().filter(|(_, nic)| nic.detached_at.is_none());
    let nics: BTreeMap<VmId, MachineNic> = attached
        .map(|(id, nic)| (nic.attached.vm_id, MachineNic { id, mac: nic.attached.mac, tap: tap_name(id) }))
        .collect();
    let pair = |other| MeshPair {
        own: view.mesh_peer(node).map(|peer| peer.address),
        other: view.mesh_peer(other).map(|peer| peer.address),
    };
    let desired = |(id, vm): (VmId, &DecidedVm)| {
        let (generation, moving) = match vm.role(node)? {
            VmRole::Former(at) => return Some((id, DesiredVm { generation: at, machine: None, moving: None })),
            VmRole::Home => (vm.generation(), None),
            VmRole::Source { to } => (vm.generation(), Some(DesiredMove::Give(pair(to)))),
            VmRole::Target { from } => (vm.generation(), Some(DesiredMove::Take(pair(from)))),
        };
        if vm.deleted_at.is_some() {
            return Some((id, DesiredVm { generation, machine: None, moving: None }));
        }
        let machine = DesiredMachine::of(vm, nics.get(&id));
        // It is told to run again by the decision that ends the move.
        let machine = machine.map(|machine| if moving.is_some() { machine.shut_down() } else { machine });
        Some((id, DesiredVm { generation, machine, moving }))
    };
    view.vms().filter_map(desired).collect()
}

impl DesiredMachine {
    fn of(vm: &DecidedVm, nic: Option<&MachineNic>) -> Option<Self> {
        let spec = vm.basis.machine()?;
        let (power, shutdown_s) = match &vm.instructed {
            Some((_, event)) => (event.instruction.leads_to(), event.timeout_s.unwrap_or(SHUTDOWN_S)),
            None => (vm.basis.power(), vm.basis.timeout_s()),
        };
        let restart = vm.instructed.as_ref().and_then(|(_, event)| match event.instruction {
            Instruction::Reboot => Some(Restart::Reboot),
            Instruction::Reset => Some(Restart::Reset),
            Instruction::Start | Instruction::Stop | Instruction::Pause | Instruction::Resume => None,
        });
        Some(Self {
            name: vm.basis.name().clone(),
            image_url: vm.basis.image_url().clone(),
            arch: vm.basis.arch(),
            spec: spec.clone(),
            power,
            shutdown_s,
            restart,
            nic: nic.cloned(),
        })
    }

    fn shut_down(self) -> Self {
        Self { power: Power::Stopped, restart: None, ..self }
    }
}
