//! What of a network can be changed, and how a change is read.

use serde_json::{Map, Value};

use super::{BridgeSpec, NetworkDraft, NetworkKind, NetworkSpec, NewNetwork, NewNetworkSpec, OverlaySpec, Ownership};
use crate::value::{GatewaySubnet, Ipv4Subnet, Metadata, NetworkName, merge_labels};
use crate::violations::Violations;

/// The rule that a field which cannot be changed violates, and what to do instead.
const FIXED: &str = "create another network, and delete this one";

/// The fields of a draft, besides the labels.
const FIELDS: [&str; 13] = [
    "name",
    "type",
    "bridge_name",
    "managed",
    "egress",
    "subnet",
    "gateway",
    "dhcp",
    "dns",
    "allow_spoofing",
    "mtu",
    "vlan",
    "description",
];

/// The definition of a network that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkDefinition {
    pub name: NetworkName,
    pub spec: NetworkSpec,
    pub metadata: Metadata,
}

impl NetworkDefinition {
    /// The draft that creates an equal network.
    pub fn draft(&self) -> NetworkDraft {
        let Self { name, spec, metadata } = self;
        let gateway = spec.gateway_subnet().map(GatewaySubnet::gateway);
        let default_gateway = spec.subnet().map(Ipv4Subnet::first_host);
        let bridge = match spec {
            NetworkSpec::Bridge(bridge) => Some(bridge),
            NetworkSpec::Overlay(_) => None,
        };
        NetworkDraft {
            name: name.to_string(),
            kind: Some(spec.kind().to_string()),
            bridge_name: bridge.map(|bridge| bridge.bridge_name.to_string()),
            managed: bridge.map(|bridge| bridge.ownership != Ownership::Unmanaged),
            egress: Some(if spec.nat().is_some() { "nat" } else { "none" }.to_owned()),
            subnet: spec.subnet().map(|subnet| subnet.to_string()),
            gateway: gateway.filter(|_| gateway != default_gateway).map(|gateway| gateway.to_string()),
            dhcp: Some(spec.dhcp().is_some()),
            dns: spec.dhcp().map(|dhcp| dhcp.dns),
            allow_spoofing: Some(spec.allows_spoofing()),
            mtu: bridge.map(|bridge| bridge.mtu.get().into()),
            vlan: bridge.and_then(|bridge| bridge.vlan).map(|vlan| vlan.get().into()),
            description: metadata.description.as_ref().map(ToString::to_string),
            labels: (!metadata.labels.is_empty()).then(|| metadata.labels.clone().into()),
        }
    }

    /// Returns the definition with the fields of `changes` replaced. A field that is null gets its default, or none; a
    /// label that is null is removed. What belongs only to something that is turned off goes with it.
    ///
    /// # Errors
    /// Every rule that the result violates, and every field that cannot be changed.
    pub fn changed(&self, mut changes: Map<String, Value>, mesh: Ipv4Subnet) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let mut fields = match serde_json::to_value(self.draft()) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) | Err(_) => Map::new(),
        };
        if let Some(labels) = changes.remove("labels") {
            let labels = merge_labels(&self.metadata.labels, labels, &mut violations);
            fields.insert("labels".to_owned(), Value::from_iter(labels));
        }
        let given: Vec<String> = changes.keys().cloned().collect();
        for (field, value) in changes {
            if value.is_null() && FIELDS.contains(&field.as_str()) {
                fields.remove(&field);
            } else if value.is_null() {
                violations.add(&field, "is not a field of a network");
            } else {
                fields.insert(field, value);
            }
        }
        remove_dependents(&mut fields, self.spec.kind(), &given);
        let (draft, malformed) = NetworkDraft::from_json(fields);
        malformed.iter().for_each(|(field, rule)| violations.add(field, rule));
        violations.combine(self.replaced_by(&draft, mesh))
    }

    /// Returns the definition as the draft has it: what the draft leaves out gets its default.
    ///
    /// # Errors
    /// Every rule that the draft violates, and every field that cannot be changed.
    pub fn replaced_by(&self, draft: &NetworkDraft, mesh: Ipv4Subnet) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let mut draft = draft.clone();
        self.check_fixed(&mut draft, &mut violations);
        if violations.iter().any(|(field, _)| field == "type") {
            // Which other fields it may have depends on the type.
            return Err(violations);
        }
        let metadata = Metadata::check(draft.description.as_deref(), draft.labels.as_ref(), &mut violations);
        draft.name = self.name.to_string();
        let own = self.draft();
        // An earlier version may have recorded what cannot be created any more: it is not in the way of other changes.
        let is_same = NetworkDraft { description: None, labels: None, ..draft.clone() }
            == NetworkDraft { description: None, labels: None, ..own };
        let spec = if is_same {
            Ok(self.spec.clone())
        } else {
            draft.check(Some(mesh)).map(|NewNetwork { spec, .. }| self.spec.with(spec))
        };
        violations.combine(spec.map(|spec| Self { name: self.name.clone(), spec, metadata }))
    }

    /// Adds a violation for each field that the draft would change and that cannot be changed, and gives it the value
    /// that it has.
    fn check_fixed(&self, draft: &mut NetworkDraft, violations: &mut Violations) {
        let own = self.draft();
        if NetworkName::parse(&draft.name).is_ok_and(|name| name.key() != self.name.key()) {
            let name = &self.name;
            violations.add("name", format!("cannot be changed from `{name}`: {FIXED}"));
        }
        let kind = draft.kind.clone().unwrap_or_else(|| NetworkKind::Bridge.to_string());
        if kind.parse::<NetworkKind>().is_ok_and(|kind| kind != self.spec.kind()) {
            violations.add("type", format!("cannot be changed from `{}`: {FIXED}", self.spec.kind()));
        }
        draft.kind = Some(kind);
        let NetworkSpec::Bridge(BridgeSpec { bridge_name, .. }) = &self.spec else { return };
        if let Some(other) = draft.bridge_name.as_ref().filter(|other| *other != bridge_name.as_str()) {
            let rule = format!("cannot be changed from `{bridge_name}` to `{other}`: {FIXED}");
            violations.add("bridge_name", rule);
            draft.bridge_name.clone_from(&own.bridge_name);
        }
        let managed = Some(draft.managed.unwrap_or(false));
        if managed != own.managed {
            let rule = if own.managed == Some(true) {
                format!("cannot be changed: otherix has created the bridge. {}", upper(FIXED))
            } else {
                format!("cannot be changed: otherix has not created the bridge. {}", upper(FIXED))
            };
            violations.add("managed", rule);
        }
        draft.managed = own.managed;
    }
}

/// With an upper-case first letter.
fn upper(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
}

/// Removes the fields that have no meaning any more, unless they are `given`.
fn remove_dependents(fields: &mut Map<String, Value>, kind: NetworkKind, given: &[String]) {
    let is = |field: &str, value: Value| fields.get(field) == Some(&value);
    let (nat, dhcp) = (is("egress", "nat".into()), is("dhcp", true.into()));
    let dependents: &[&str] = match (kind, nat || dhcp, dhcp) {
        (NetworkKind::Bridge, false, _) => &["subnet", "gateway", "dns"],
        (NetworkKind::Overlay, false, _) => &["gateway", "dns"],
        (_, true, false) => &["dns"],
        (_, true, true) => &[],
    };
    for field in dependents.iter().filter(|field| !given.iter().any(|given| given == *field)) {
        fields.remove(*field);
    }
}

impl NetworkSpec {
    /// Returns the new spec, with what this one was assigned.
    fn with(&self, new: NewNetworkSpec) -> Self {
        match (self, new) {
            (_, NewNetworkSpec::Bridge(bridge)) => Self::Bridge(bridge),
            (Self::Overlay(own), NewNetworkSpec::Overlay { subnet, egress, dhcp, allow_spoofing }) => {
                Self::Overlay(OverlaySpec { subnet, egress, dhcp, allow_spoofing, ..own.clone() })
            }
            // Its type cannot be changed.
            (Self::Bridge(_), NewNetworkSpec::Overlay { .. }) => self.clone(),
        }
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
