//! The machines that VMs require of this node.

use std::collections::BTreeMap;

use otherix_schemas::id::{NicId, NodeId, VmId};
use otherix_schemas::nic::tap_name;
use otherix_schemas::position::Position;
use otherix_schemas::value::{ImageUrl, MacAddress, VmName};
use otherix_schemas::vm::{Arch, Instruction, Machine, Power, SHUTDOWN_S};
use serde::{Deserialize, Serialize};

use crate::model::cluster_view::{ClusterView, DecidedVm};

/// What a VM requires of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredVm {
    pub generation: Position,
    /// Absent if the VM is deleted: its process, its disk and its files are to be removed.
    pub machine: Option<DesiredMachine>,
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
    let local = view.vms().filter(|(_, vm)| vm.created.node_id == node);
    local.map(|(id, vm)| (id, DesiredVm::of(vm, nics.get(&id)))).collect()
}

impl DesiredVm {
    fn of(vm: &DecidedVm, nic: Option<&MachineNic>) -> Self {
        let machine = vm.created.machine.as_ref().filter(|_| vm.deleted_at.is_none()).map(|spec| {
            let (power, shutdown_s) = match &vm.instructed {
                Some((_, event)) => (event.instruction.leads_to(), event.timeout_s.unwrap_or(SHUTDOWN_S)),
                None => (Power::Running, SHUTDOWN_S),
            };
            let restart = vm.instructed.as_ref().and_then(|(_, event)| match event.instruction {
                Instruction::Reboot => Some(Restart::Reboot),
                Instruction::Reset => Some(Restart::Reset),
                Instruction::Start | Instruction::Stop | Instruction::Pause | Instruction::Resume => None,
            });
            DesiredMachine {
                name: vm.created.name.clone(),
                image_url: vm.created.image_url.clone(),
                arch: vm.created.arch,
                spec: spec.clone(),
                power,
                shutdown_s,
                restart,
                nic: nic.cloned(),
            }
        });
        Self { generation: vm.generation(), machine }
    }
}
