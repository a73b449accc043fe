//! Applying the definition of a VM.

use otherix_schemas::change::{Applied, ChangeResult};
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::id::VmId;
use otherix_schemas::outcome::{Outcome, OutcomeStatus};
use otherix_schemas::permission::Permission;
use otherix_schemas::user::RowScope;
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::{Machine, NewVm, VmView};

use super::label::{self, labelled};
use super::{Vm, check_scope, placed_view, reply};
use crate::domain::{Decision, Rejection, Reply, State, nic};

/// What to do about a field that differs.
pub(super) const FIXED: &str = "delete the VM, and create it again";

/// Returns the VM with the name of this definition.
pub(super) fn named(state: &State, new: &NewVm) -> Option<VmId> {
    state.vms.by_name.get(&new.name.key())
}

/// Nothing is recorded of a VM that is so already. One that differs in more than description and labels is refused,
/// with all fields that do.
pub(super) fn compare(state: &State, id: VmId, new: &NewVm, scope: &RowScope) -> Result<Decision, Rejection> {
    let vm = state.vms().get(&id).ok_or(Rejection::NoSuchVm(id))?;
    let mut violations = Violations::default();
    let v = &mut violations;
    differs("image_url", &vm.image_url, &new.image_url, v);
    differs("arch", &vm.arch, &new.arch, v);
    compare_placement(state, id, vm, new, v);
    match (&vm.machine, &new.machine) {
        (None, None) => {}
        (Some(_), None) => v.add("machine", format!("cannot be removed: {FIXED}")),
        (None, Some(_)) => v.add("machine", format!("cannot be added: {FIXED}")),
        (Some(machine), Some(new)) => compare_machines(&machine.spec, new, v),
    }
    if !violations.is_empty() {
        return Err(Rejection::Invalid(violations));
    }
    let labelled = labelled(id, &vm.metadata, &new.metadata);
    if labelled.is_some() {
        check_scope(vm, scope, Permission::VmLifecycle)?;
    }
    Ok(labelled.into_iter().collect::<Vec<_>>().into())
}

fn compare_placement(state: &State, id: VmId, vm: &Vm, new: &NewVm, v: &mut Violations) {
    let nic = state.nics.of_vm(id).next().map(|(_, nic)| nic);
    let network = nic.map(|nic| nic.network_id);
    if network != new.network_id {
        let name = |id: Option<_>| {
            let name = id.and_then(|id| Some(state.live_network(id)?.name.to_string()));
            name.unwrap_or_else(|| "none".to_owned())
        };
        let rule = format!("cannot be changed from `{}` to `{}`: {FIXED}", name(network), name(new.network_id));
        v.add("network_id", rule);
    }
    if let (Some(ip), Some(Some(own))) = (new.ip, nic.map(|nic| nic.ip)) {
        differs("ip", &own, &ip, v);
    }
    if let Some(node) = new.node_id.filter(|node| *node != vm.node_id) {
        let name = |id| state.nodes().get(&id).map_or_else(|| id.to_string(), |node| node.name.to_string());
        v.add("node_id", format!("cannot be changed from `{}` to `{}`: {FIXED}", name(vm.node_id), name(node)));
    }
}

fn compare_machines(machine: &Machine, new: &Machine, v: &mut Violations) {
    let Machine { vcpus, memory_mb, disk_gib, image_sha256, pull_policy, cloud_init } = machine;
    let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    differs("machine.vcpus", vcpus, &new.vcpus, v);
    differs("machine.memory_mb", memory_mb, &new.memory_mb, v);
    let size = |size: &Option<u32>| text(size.map(|size| size.to_string()));
    differs("machine.disk_gib", &size(disk_gib), &size(&new.disk_gib), v);
    let digests = [image_sha256, &new.image_sha256].map(|digest| text(digest.as_ref().map(ToString::to_string)));
    let [own, wanted] = &digests;
    differs("machine.image_sha256", own, wanted, v);
    differs("machine.pull_policy", pull_policy, &new.pull_policy, v);
    if *cloud_init != new.cloud_init {
        v.add("machine.cloud_init", format!("cannot be changed: cloud-init has read it. To change it, {FIXED}"));
    }
}

fn differs<T: PartialEq + std::fmt::Display>(field: &str, own: &T, new: &T, v: &mut Violations) {
    if own != new {
        v.add(field, format!("cannot be changed from `{own}` to `{new}`: {FIXED}"));
    }
}

/// Returns the answer: the VM that the events create, or the one that is so already.
pub(super) fn applied(before: &State, new: &NewVm, envelopes: &[EventEnvelope]) -> Reply {
    if let Reply::Vm(view) = reply(before, None, envelopes) {
        let created = Applied { result: ChangeResult::Created, changes: Vec::new(), resource: *view };
        return Reply::AppliedVm(Box::new(created));
    }
    let applied = named(before, new).and_then(|id| label::applied(before, id, envelopes));
    applied.map_or(Reply::Nothing, |applied| Reply::AppliedVm(Box::new(applied)))
}

/// Returns a VM as it is, with what its node reported last of its NIC and its machine.
pub(super) fn current(before: &State, id: VmId) -> Option<VmView> {
    let vm = before.vms().get(&id)?;
    let nic = before.nics.of_vm(id).next().map(|(_, nic)| nic);
    let of_nic = nic.and_then(|nic| nic.outcomes.get(&vm.node_id).filter(|status| status.generation == nic.generation));
    let of_machine = vm
        .machine
        .as_ref()
        .and_then(|machine| machine.status.as_ref().filter(|status| status.generation == machine.generation));
    let is_reported = nic.is_some() == of_nic.is_some() && vm.machine.is_some() == of_machine.is_some();
    let reported = of_nic.into_iter().chain(of_machine).map(|status| &status.outcome);
    let worst = reported.clone().find(|outcome| **outcome != Outcome::Ready);
    let view = placed_view(before, id, vm.clone(), nic::current_view(before, id))?;
    let (status, error) = match worst {
        Some(outcome) => (outcome.status(), outcome.error().map(str::to_owned)),
        None if is_reported => (OutcomeStatus::Ready, None),
        None => (OutcomeStatus::Pending, Some("waiting for its node".to_owned())),
    };
    Some(VmView { status, error, ..view })
}
