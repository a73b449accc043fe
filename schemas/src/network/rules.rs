//! The rules of a network's definition. All violations are reported together, each with its field.

use std::net::Ipv4Addr;

use serde_json::{Map, Value};

use super::{
    BridgeSpec, Dhcp, Egress, NetworkDraft, NetworkKind, NetworkPageRequest, NewNetwork, NewNetworkSpec, Ownership,
};
use crate::json_field::{boolean, integer, text};
use crate::value::{
    BridgeName, GatewaySubnet, Ipv4Subnet, Metadata, Mtu, NetworkName, SubnetError, VlanId, labels_from_json,
};
use crate::violations::Violations;

impl NetworkDraft {
    /// Reads a draft from a JSON object. An unknown field, or a value of the wrong type, is a violation; a missing
    /// field is left to [`NetworkDraft::check`].
    pub fn from_json(object: Map<String, Value>) -> (Self, Violations) {
        let mut violations = Violations::default();
        let mut draft = Self::default();
        for (field, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
            let v = &mut violations;
            match field.as_str() {
                "name" => draft.name = text(&field, value, v).unwrap_or_default(),
                "type" => draft.kind = text(&field, value, v),
                "bridge_name" => draft.bridge_name = text(&field, value, v),
                "egress" => draft.egress = text(&field, value, v),
                "subnet" => draft.subnet = text(&field, value, v),
                "gateway" => draft.gateway = text(&field, value, v),
                "managed" => draft.managed = boolean(&field, &value, v),
                "dhcp" => draft.dhcp = boolean(&field, &value, v),
                "dns" => draft.dns = boolean(&field, &value, v),
                "allow_spoofing" => draft.allow_spoofing = boolean(&field, &value, v),
                "mtu" => draft.mtu = integer(&field, &value, v),
                "vlan" => draft.vlan = integer(&field, &value, v),
                "description" => draft.description = text(&field, value, v),
                "labels" => draft.labels = labels_from_json(value, v),
                _ => v.add(&field, "is not a field of a network"),
            }
        }
        (draft, violations)
    }

    /// Validates the draft. `mesh` is the mesh supernet, which no NAT subnet may lie in; a client, which does not know
    /// the cluster's supernet, passes `None` and leaves that rule to the control plane.
    ///
    /// # Errors
    /// Every rule that the draft violates.
    pub fn check(&self, mesh: Option<Ipv4Subnet>) -> Result<NewNetwork, Violations> {
        let mut violations = Violations::default();
        let v = &mut violations;
        NetworkName::violations(&self.name).for_each(|rule| v.add("name", rule));
        let name = NetworkName::parse(&self.name).ok();
        let kind = match &self.kind {
            None => Some(NetworkKind::Bridge),
            Some(text) => v.check("type", text.parse()),
        };
        let metadata = Metadata::check(self.description.as_deref(), self.labels.as_ref(), v);
        let fields = ParsedFields::parse(self, v);
        let spec = match kind {
            Some(NetworkKind::Bridge) => bridge(self, fields, mesh, v).map(NewNetworkSpec::Bridge),
            Some(NetworkKind::Overlay) => overlay(self, fields, mesh, v),
            None => None,
        };
        match (name, spec) {
            (Some(name), Some(spec)) if violations.is_empty() => Ok(NewNetwork { name, spec, metadata }),
            _ => Err(violations),
        }
    }
}

impl NetworkPageRequest {
    /// Reads the request from a JSON object. An unknown field, or a value of the wrong type, is a violation.
    pub fn from_json(object: Map<String, Value>) -> (Self, Violations) {
        let mut violations = Violations::default();
        let mut page = Self::default();
        for (field, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
            let v = &mut violations;
            match field.as_str() {
                "type" => page.kind = text(&field, value, v),
                "cursor" => page.cursor = text(&field, value, v),
                "limit" => page.limit = integer(&field, &value, v),
                _ => v.add(&field, "is not a field of a list"),
            }
        }
        (page, violations)
    }
}

/// The fields that can be validated on their own, parsed.
struct ParsedFields {
    bridge_name: Option<BridgeName>,
    nat: Option<bool>,
    subnet: Option<Ipv4Subnet>,
    gateway: Option<Ipv4Addr>,
    mtu: Option<Mtu>,
    vlan: Option<VlanId>,
}

impl ParsedFields {
    fn parse(draft: &NetworkDraft, v: &mut Violations) -> Self {
        let NetworkDraft { bridge_name, egress, subnet, gateway, mtu, vlan, .. } = draft;
        let nat = match egress.as_deref() {
            None | Some("none") => Some(false),
            Some("nat") => Some(true),
            Some(other) => {
                v.add("egress", format!("must be `none` or `nat`, not `{other}`"));
                None
            }
        };
        let rules = bridge_name.iter().flat_map(|text| BridgeName::violations_of_new(text));
        rules.for_each(|rule| v.add("bridge_name", rule));
        let address =
            |text: &String| text.parse::<Ipv4Addr>().map_err(|_| format!("must be an IPv4 address, not `{text}`"));
        Self {
            bridge_name: bridge_name.as_ref().and_then(|text| BridgeName::parse(text).ok()),
            nat,
            subnet: subnet.as_ref().and_then(|text| v.check("subnet", usable_subnet(text))),
            gateway: gateway.as_ref().and_then(|text| v.check("gateway", address(text))),
            mtu: mtu.and_then(|number| v.check("mtu", Mtu::try_from(number))),
            vlan: vlan.and_then(|number| v.check("vlan", VlanId::try_from(number))),
        }
    }
}

fn usable_subnet(text: &str) -> Result<Ipv4Subnet, SubnetError> {
    let subnet: Ipv4Subnet = text.parse()?;
    subnet.check_usable().map(|()| subnet)
}

fn bridge(
    draft: &NetworkDraft,
    fields: ParsedFields,
    mesh: Option<Ipv4Subnet>,
    v: &mut Violations,
) -> Option<BridgeSpec> {
    if draft.bridge_name.is_none() {
        v.add("bridge_name", "is required for a bridge");
    }
    let managed = draft.managed.unwrap_or(false);
    let subnet = bridge_subnet(draft, &fields, managed, v);
    check_outside_mesh(&fields, mesh, v);
    let ownership = match (managed, subnet.filter(|_| fields.nat == Some(true))) {
        (false, _) => Ownership::Unmanaged,
        (true, None) => Ownership::Managed(Egress::None),
        (true, Some(nat)) => Ownership::Managed(Egress::Nat(nat)),
    };
    Some(BridgeSpec {
        bridge_name: fields.bridge_name?,
        ownership,
        mtu: fields.mtu.unwrap_or(Mtu::DEFAULT),
        vlan: fields.vlan,
        dhcp: dhcp(draft, subnet, v),
        allow_spoofing: draft.allow_spoofing.unwrap_or(false),
    })
}

/// The subnet and gateway of a bridge, with the rules between its fields.
fn bridge_subnet(
    draft: &NetworkDraft,
    fields: &ParsedFields,
    managed: bool,
    v: &mut Violations,
) -> Option<GatewaySubnet> {
    let nat = fields.nat == Some(true);
    let dhcp = draft.dhcp == Some(true);
    if nat && !managed {
        v.add("egress", "`nat` needs a managed bridge");
    }
    if dhcp && !managed {
        v.add("dhcp", "needs a managed bridge or an overlay");
    }
    if draft.subnet.is_none() {
        if nat {
            v.add("subnet", "is required for egress `nat`");
        } else if dhcp {
            v.add("subnet", "is required for DHCP");
        }
    } else if fields.nat == Some(false) && !dhcp {
        v.add("subnet", "is only for egress `nat` and for DHCP");
    }
    if draft.gateway.is_some() && draft.subnet.is_none() {
        v.add("gateway", "needs a subnet");
    }
    v.check("gateway", GatewaySubnet::new(fields.subnet?, fields.gateway))
}

/// The requested assignment of addresses, if the subnet is valid.
fn dhcp(draft: &NetworkDraft, subnet: Option<GatewaySubnet>, v: &mut Violations) -> Option<Dhcp> {
    let requested = draft.dhcp.unwrap_or(false);
    if draft.dns == Some(true) && !requested {
        v.add("dns", "needs DHCP");
    }
    let subnet = subnet.filter(|_| requested)?;
    Some(Dhcp { subnet, dns: draft.dns.unwrap_or(true) })
}

/// The subnet of a network with NAT egress must not be reached through the mesh.
fn check_outside_mesh(fields: &ParsedFields, mesh: Option<Ipv4Subnet>, v: &mut Violations) {
    if let (Some(true), Some(subnet), Some(mesh)) = (fields.nat, fields.subnet, mesh)
        && subnet.is_within(mesh)
    {
        v.add("subnet", format!("must not lie in the mesh's supernet `{mesh}`"));
    }
}

fn overlay(
    draft: &NetworkDraft,
    fields: ParsedFields,
    mesh: Option<Ipv4Subnet>,
    v: &mut Violations,
) -> Option<NewNetworkSpec> {
    let forbidden = [
        ("bridge_name", draft.bridge_name.is_some()),
        ("mtu", draft.mtu.is_some()),
        ("vlan", draft.vlan.is_some()),
        ("managed", draft.managed.is_some()),
    ];
    for (field, _) in forbidden.into_iter().filter(|(_, given)| *given) {
        v.add(field, "is not for an overlay");
    }
    check_outside_mesh(&fields, mesh, v);
    if draft.gateway.is_some() && draft.dhcp != Some(true) && fields.nat == Some(false) {
        v.add("gateway", "is only for an overlay with DHCP or egress `nat`");
    }
    if draft.subnet.is_none() {
        v.add("subnet", "is required for an overlay");
    }
    let subnet = fields.subnet.and_then(|subnet| v.check("gateway", GatewaySubnet::new(subnet, fields.gateway)));
    let dhcp = dhcp(draft, subnet, v);
    let allow_spoofing = draft.allow_spoofing.unwrap_or(false);
    let egress = subnet.filter(|_| fields.nat == Some(true)).map_or(Egress::None, Egress::Nat);
    Some(NewNetworkSpec::Overlay { subnet: fields.subnet?, egress, dhcp, allow_spoofing })
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
