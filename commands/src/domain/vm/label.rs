//! Description and labels of VMs.

use otherix_schemas::change::{Applied, ChangeResult, field_changes};
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::{DomainEvent, Event};
use otherix_schemas::id::VmId;
use otherix_schemas::permission::Permission;
use otherix_schemas::position::Position;
use otherix_schemas::user::RowScope;
use otherix_schemas::value::Metadata;
use otherix_schemas::vm::{VmEvent, VmLabelled, VmView};
use serde_json::{Map, Value, json};

use super::apply::{FIXED, current};
use super::{Vms, check_scope};
use crate::domain::rejection::GenerationConflict;
use crate::domain::{Decision, Rejection, State};

impl Vms {
    pub(super) fn labelled(&mut self, header: &Header, event: &VmLabelled) {
        let Some(vm) = self.by_id.get_mut(&event.vm_id) else { return };
        let VmLabelled { vm_id: _, description, labels } = event.clone();
        vm.metadata = Metadata { description, labels };
        vm.decided(header);
    }
}

/// The event that gives a VM its description and labels, unless it has these.
pub(super) fn labelled(vm_id: VmId, before: &Metadata, after: &Metadata) -> Option<Event> {
    let Metadata { description, labels } = after.clone();
    (before != after).then(|| VmLabelled { vm_id, description, labels }.into())
}

/// Changes description and labels; other fields are refused.
pub(super) fn change(
    state: &State,
    id: VmId,
    if_generation: Option<Position>,
    changes: &Map<String, Value>,
    scope: &RowScope,
) -> Result<Decision, Rejection> {
    let vm = state.vms().get(&id).ok_or(Rejection::NoSuchVm(id))?;
    check_scope(vm, scope, Permission::VmLifecycle)?;
    let wanted = vm.metadata.changed(changes.clone(), &format!("cannot be changed: {FIXED}"));
    if let Some(expected) = if_generation.filter(|expected| *expected != vm.generation) {
        let view = current(state, id);
        let requested = wanted
            .ok()
            .and_then(|Metadata { description, labels }| Some(json!(VmView { description, labels, ..view.clone()? })));
        let (name, actual, current) = (vm.name.to_string(), vm.generation, json!(view));
        let conflict = GenerationConflict { noun: "VM", name, expected, actual, current, requested };
        return Err(Rejection::GenerationChanged(Box::new(conflict)));
    }
    let wanted = wanted.map_err(Rejection::Invalid)?;
    Ok(labelled(id, &vm.metadata, &wanted).into_iter().collect::<Vec<_>>().into())
}

/// Returns the answer to a change of a VM, which led to these events.
pub(super) fn applied(before: &State, id: VmId, envelopes: &[EventEnvelope]) -> Option<Applied<VmView>> {
    let resource = current(before, id)?;
    let labelled = envelopes.iter().find_map(|EventEnvelope { header, event }| match event {
        Event::Vm(VmEvent::Labelled(event)) if event.vm_id == id => Some((header, event)),
        Event::Vm(_)
        | Event::Network(_)
        | Event::Nic(_)
        | Event::Node(_)
        | Event::User(_)
        | Event::Enrollment(_)
        | Event::Cluster(_) => None,
    });
    let Some((header, event)) = labelled else {
        return Some(Applied { result: ChangeResult::Unchanged, changes: Vec::new(), resource });
    };
    let Metadata { description, labels } = before.vms().get(&id)?.metadata.clone();
    let was = VmLabelled { vm_id: id, description, labels };
    let changes = field_changes(&json!(was.to_stored()), &json!(event.to_stored()));
    let VmLabelled { vm_id: _, description, labels } = event.clone();
    let (generation, updated_at) = (header.position, header.time);
    let resource = VmView { description, labels, generation, updated_at, ..resource };
    Some(Applied { result: ChangeResult::Changed, changes, resource })
}
