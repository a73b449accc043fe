//! The rules of a VM's definition. All violations are reported together, each with its field.

use std::net::Ipv4Addr;

use serde_json::{Map, Value};

use super::{Arch, MachineDraft, NewVm, VmDraft};
use crate::json_field::{object, text};
use crate::value::{ImageUrl, Metadata, VmName, labels_from_json};
use crate::violations::Violations;

impl VmDraft {
    /// Reads a draft from a JSON object. An unknown field, or a value of the wrong type, is a violation; a missing
    /// field is left to [`VmDraft::check`].
    pub fn from_json(fields: Map<String, Value>) -> (Self, Violations) {
        let mut violations = Violations::default();
        let mut draft = Self::default();
        for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
            let v = &mut violations;
            match field.as_str() {
                "name" => draft.name = text(&field, value, v).unwrap_or_default(),
                "image_url" => draft.image_url = text(&field, value, v),
                "arch" => draft.arch = text(&field, value, v),
                "network_id" => draft.network_id = text(&field, value, v),
                "ip" => draft.ip = text(&field, value, v),
                "node_id" => draft.node_id = text(&field, value, v),
                "machine" => {
                    draft.machine = object(&field, value, v).map(|fields| MachineDraft::from_json(fields, v));
                }
                "description" => draft.description = text(&field, value, v),
                "labels" => draft.labels = labels_from_json(value, v),
                _ => v.add(&field, "is not a field of a VM"),
            }
        }
        (draft, violations)
    }

    /// Validates the draft.
    ///
    /// # Errors
    /// Every rule that the draft violates.
    pub fn check(&self) -> Result<NewVm, Violations> {
        let Self { name, image_url, arch, network_id, ip, node_id, machine, description, labels } = self;
        let mut violations = Violations::default();
        let v = &mut violations;
        VmName::violations(name).for_each(|rule| v.add("name", rule));
        let name = VmName::parse(name).ok();
        let image_url =
            required("image_url", image_url.as_deref(), v).and_then(|url| v.check("image_url", ImageUrl::parse(url)));
        let arch = required("arch", arch.as_deref(), v).and_then(|arch| v.check("arch", arch.parse::<Arch>()));
        if ip.is_some() && network_id.is_none() {
            v.add("ip", "needs a network");
        }
        let ip = ip.as_ref().and_then(|text| v.check("ip", address(text)));
        let network_id = network_id.as_ref().and_then(|id| v.check("network_id", id.parse()));
        let node_id = node_id.as_ref().and_then(|id| v.check("node_id", id.parse()));
        let machine = machine.as_ref().and_then(|machine| machine.check(v));
        let metadata = Metadata::check(description.as_deref(), labels.as_ref(), v);
        match (name, image_url, arch) {
            (Some(name), Some(image_url), Some(arch)) if violations.is_empty() => {
                Ok(NewVm { name, image_url, arch, network_id, ip, node_id, machine, metadata })
            }
            _ => Err(violations),
        }
    }
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("must be an IPv4 address, not `{text}`"))
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

    use super::*;

    fn violations(vm: Value) -> Vec<String> {
        let Value::Object(object) = vm else { panic!("no object") };
        let (draft, violations) = VmDraft::from_json(object);
        let violations = violations.combine(draft.check()).err().unwrap_or_default();
        violations.iter().map(|(field, rule)| format!("{field}: {rule}")).collect()
    }

    #[test]
    fn requires_name_image_and_arch() {
        assert_eq!(
            violations(json!({"name": "vm-1", "image_url": "https://images.example/a", "arch": "arm64"})),
            [""; 0]
        );
        let missing = ["arch: is required for a VM", "image_url: is required for a VM", "name: must not be empty"];
        assert_eq!(violations(json!({})), missing);
    }

    #[test]
    fn an_address_needs_a_network() {
        let vm = |network: Value, ip: &str| {
            let network_id = json!({"name": "vm-1", "image_url": "https://images.example/a", "arch": "arm64",
                "network_id": network, "ip": ip});
            violations(network_id)
        };
        let network = json!("0198e8c4-0000-7000-8000-000000000004");
        assert_eq!(vm(network.clone(), "10.20.0.9"), [""; 0]);
        assert_eq!(vm(Value::Null, "10.20.0.9"), ["ip: needs a network"]);
        for ip in ["", "10.20.0", "10.20.0.9/24", "10.20.0.09", "fd00::1", "web"] {
            assert_eq!(vm(network.clone(), ip), [format!("ip: must be an IPv4 address, not `{ip}`")]);
        }
    }

    #[test]
    fn reports_all_violations_together() {
        let vm =
            json!({"name": "a/b", "image_url": 7, "arch": "vax", "network_id": "net", "node_id": "node-1", "cpus": 4});
        let expected = [
            "arch: must be `amd64` or `arm64`, not `vax`",
            "cpus: is not a field of a VM",
            "image_url: must be a string",
            "name: must not contain `/`",
            "network_id: must be a UUID, not `net`",
            "node_id: must be a UUID, not `node-1`",
        ];
        assert_eq!(violations(vm), expected);
    }
}
