//! The rules of a request for a VM.

use serde_json::{Map, Value};

use super::text;
use crate::value::{ImageUrl, VmName};
use crate::violations::Violations;
use crate::vm::{Arch, NewVm, VmDraft};

/// Reads a draft from a JSON object. What is missing is left for [`check_vm`]; a field that does not exist, or has a value of the
/// wrong type, is a violation.
pub fn vm_from_json(object: Map<String, Value>) -> (VmDraft, Violations) {
    let mut violations = Violations::default();
    let mut draft = VmDraft::default();
    for (field, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
        let v = &mut violations;
        match field.as_str() {
            "name" => draft.name = text(&field, value, v).unwrap_or_default(),
            "image_url" => draft.image_url = text(&field, value, v),
            "arch" => draft.arch = text(&field, value, v),
            "network_id" => draft.network_id = text(&field, value, v),
            "node_id" => draft.node_id = text(&field, value, v),
            _ => v.add(&field, "is not a field of a VM"),
        }
    }
    (draft, violations)
}

/// Checks a draft.
///
/// # Errors
/// Every rule that the draft breaks.
pub fn check_vm(draft: &VmDraft) -> Result<NewVm, Violations> {
    let VmDraft { name, image_url, arch, network_id, node_id } = draft;
    let mut violations = Violations::default();
    let v = &mut violations;
    VmName::faults(name).for_each(|fault| v.add("name", fault));
    let name = VmName::parse(name).ok();
    let image_url =
        required("image_url", image_url.as_deref(), v).and_then(|url| v.check("image_url", ImageUrl::parse(url)));
    let arch = required("arch", arch.as_deref(), v).and_then(|arch| v.check("arch", arch.parse::<Arch>()));
    let network_id = network_id.as_ref().and_then(|id| v.check("network_id", id.parse()));
    let node_id = node_id.as_ref().and_then(|id| v.check("node_id", id.parse()));
    match (name, image_url, arch) {
        (Some(name), Some(image_url), Some(arch)) if violations.is_empty() => {
            Ok(NewVm { name, image_url, arch, network_id, node_id })
        }
        _ => Err(violations),
    }
}

fn required<'a>(field: &str, value: Option<&'a str>, violations: &mut Violations) -> Option<&'a str> {
    if value.is_none() {
        violations.add(field, "is required for a VM");
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::together;
    use super::*;

    fn broken(vm: Value) -> Vec<String> {
        let Value::Object(object) = vm else { panic!("no object") };
        let (draft, violations) = vm_from_json(object);
        let violations = together(violations, check_vm(&draft)).err().unwrap_or_default();
        violations.iter().map(|(field, rule)| format!("{field}: {rule}")).collect()
    }

    #[test]
    fn a_vm_needs_a_name_an_image_and_an_architecture() {
        assert_eq!(broken(json!({"name": "vm-1", "image_url": "https://images.example/a", "arch": "arm64"})), [""; 0]);
        let missing = ["arch: is required for a VM", "image_url: is required for a VM", "name: must not be empty"];
        assert_eq!(broken(json!({})), missing);
    }

    #[test]
    fn all_faults_are_told_together() {
        let vm =
            json!({"name": "a/b", "image_url": 7, "arch": "vax", "network_id": "net", "node_id": "node-1", "cpus": 4});
        let wanted = [
            "arch: must be `amd64` or `arm64`, not `vax`",
            "cpus: is not a field of a VM",
            "image_url: must be a text",
            "name: must not contain `/`",
            "network_id: must be a UUID, not `net`",
            "node_id: must be a UUID, not `node-1`",
        ];
        assert_eq!(broken(vm), wanted);
    }
}
