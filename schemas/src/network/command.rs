//! Commands on networks.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{NetworkById, NetworkDraft, NetworkView, NewNetwork};
use crate::change::Applied;
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::id::NetworkId;
use crate::permission::Permission;
use crate::position::Position;
use crate::request::{Request, RequestKind, RequestType, parse_body};

/// The requests that change networks.
pub(crate) const COMMANDS: &[Request] = &[
    Request::of::<CreateNetwork>(),
    Request::of::<ChangeNetwork>(),
    Request::of::<ApplyNetwork>(),
    Request::of::<DeleteNetwork>(),
];

/// A command on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkCommand {
    Create {
        /// Generated for the request.
        network_id: NetworkId,
        network: NewNetwork,
    },
    Change {
        network_id: NetworkId,
        /// It is refused if the network is of another generation.
        if_generation: Option<Position>,
        /// The fields of a draft with their new values.
        changes: Map<String, Value>,
    },
    /// Creates the network of this name, or changes it to what the draft has.
    Apply {
        /// Generated for the request, for a new network.
        network_id: NetworkId,
        if_generation: Option<Position>,
        draft: Box<NetworkDraft>,
    },
    Delete {
        network_id: NetworkId,
    },
}

/// `network.create`
#[derive(Clone, Copy, Debug)]
pub struct CreateNetwork;

impl RequestType for CreateNetwork {
    const NAME: &'static str = "network.create";
    const PERMISSION: Permission = Permission::NetworkManage;
    const KIND: RequestKind = RequestKind::Command(create);
    const SUMMARY: &'static str = "Create a network";
    const DESCRIPTION: &'static str = "The answer has the network's id. Nodes create their bridges afterwards; \
        `status` of `network.get` shows which have. `conflict` if the name is in use, the bridge belongs to another \
        network (only unmanaged networks may share one), or a NAT subnet overlaps that of another network.";
    type Body = NetworkDraft;
    type Answer = NetworkView;
}

fn create(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let (draft, violations) = NetworkDraft::from_json(parse_body(body)?);
    let network = violations.combine(draft.check(Some(inputs.mesh)))?;
    let network_id = NetworkId::new(inputs.generated.resource);
    Ok(Command::Network(NetworkCommand::Create { network_id, network }))
}

/// The fields of a network to change. A field that is left out is as before; one that is null gets its default, or
/// none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NetworkChanges {
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Only the labels that change. One that is null is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// `none` or `nat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// An IPv4 prefix of length 8 to 30, which holds all addresses in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// The nodes' address in the subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Whether the network assigns addresses; only while no VM is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Whether the gateway resolves names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<bool>,
    /// Whether guests may send from other addresses than those of their NICs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_spoofing: Option<bool>,
    /// MTU in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// VLAN id on the bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<i64>,
}

/// A change of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkChangeRequest {
    pub id: NetworkId,
    /// It is refused if the network is of another generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_generation: Option<Position>,
    #[schemars(with = "NetworkChanges")]
    pub changes: Map<String, Value>,
}

/// `network.change`
#[derive(Clone, Copy, Debug)]
pub struct ChangeNetwork;

impl RequestType for ChangeNetwork {
    const NAME: &'static str = "network.change";
    const PERMISSION: Permission = Permission::NetworkManage;
    const KIND: RequestKind = RequestKind::Command(change);
    const SUMMARY: &'static str = "Change a network";
    const DESCRIPTION: &'static str = "Nodes carry it out in place afterwards; `status` of `network.get` shows which \
        have. Nothing is recorded if the network is so already. Name, type, bridge and `managed` cannot be changed, \
        `dhcp` only while no VM is attached, and the subnet must hold all addresses in use: all fields that are \
        refused are in `details.fields`. `conflict` if the network is of another generation than `if_generation`: \
        `details.generation`, `details.current` and, if the change would be possible, `details.requested`.";
    type Body = NetworkChangeRequest;
    type Answer = Applied<NetworkView>;
}

fn change(body: &[u8], _: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let NetworkChangeRequest { id, if_generation, changes } = parse_body(body)?;
    Ok(Command::Network(NetworkCommand::Change { network_id: id, if_generation, changes }))
}

/// The definition of a network that is to exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NetworkApplyRequest {
    #[serde(flatten)]
    pub draft: NetworkDraft,
    /// It is refused if the network is of another generation, or does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_generation: Option<Position>,
}

/// `network.apply`
#[derive(Clone, Copy, Debug)]
pub struct ApplyNetwork;

impl RequestType for ApplyNetwork {
    const NAME: &'static str = "network.apply";
    const PERMISSION: Permission = Permission::NetworkManage;
    const KIND: RequestKind = RequestKind::Command(apply);
    const SUMMARY: &'static str = "Create the network of this name, or change it to this definition";
    const DESCRIPTION: &'static str = "The definition is all of it: a field that is left out gets its default, and \
        labels that are left out are removed. Nothing is recorded if the network is so already. Refused as \
        `network.create` and `network.change` are.";
    type Body = NetworkApplyRequest;
    type Answer = Applied<NetworkView>;
}

fn apply(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let mut fields: Map<String, Value> = parse_body(body)?;
    let if_generation = fields.remove("if_generation").filter(|value| !value.is_null());
    let (draft, mut violations) = NetworkDraft::from_json(fields);
    let if_generation = if_generation.and_then(|value| {
        let parsed = serde_json::from_value(value).map_err(|_| "must be a generation, as `network.get` shows it");
        violations.check("if_generation", parsed)
    });
    if !violations.is_empty() {
        // With the violations that checking it as a new network finds.
        return Err(violations.combine(draft.check(Some(inputs.mesh))).err().unwrap_or_default().into());
    }
    let network_id = NetworkId::new(inputs.generated.resource);
    Ok(Command::Network(NetworkCommand::Apply { network_id, if_generation, draft: Box::new(draft) }))
}

/// `network.delete`
#[derive(Clone, Copy, Debug)]
pub struct DeleteNetwork;

impl RequestType for DeleteNetwork {
    const NAME: &'static str = "network.delete";
    const PERMISSION: Permission = Permission::NetworkManage;
    const KIND: RequestKind = RequestKind::Command(delete);
    const SUMMARY: &'static str = "Delete a network";
    const DESCRIPTION: &'static str = "Nodes remove their bridges afterwards; the network can be queried until all \
        have. `conflict`, with the number of NICs in `details.vm_nics`, while NICs are attached to it.";
    type Body = NetworkById;
    type Answer = NetworkView;
}

fn delete(body: &[u8], _: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let NetworkById { id } = parse_body(body)?;
    Ok(Command::Network(NetworkCommand::Delete { network_id: id }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::command::GeneratedIds;
    use crate::error::ErrorCode;
    use crate::id::NicId;
    use crate::nic::GeneratedNic;
    use crate::permission::Role;
    use crate::user::Caller;
    use crate::value::Ipv4Subnet;

    fn parse(body: &[u8]) -> Result<Command, ErrorBody> {
        let nic = GeneratedNic { nic_id: NicId::new(Uuid::nil()), mac: 0 };
        let generated = GeneratedIds { resource: Uuid::nil(), nic };
        let (key, id, name) = ("admin".parse().unwrap(), "admin".parse().unwrap(), "admin".to_owned());
        let caller = &Caller { key, id, name, role: Role::Admin, expires_at: None };
        create(body, CommandInputs { caller, mesh: Ipv4Subnet::DEFAULT_MESH, generated })
    }

    #[test]
    fn reports_all_violations_with_their_fields() {
        let body = json!({"name": 7, "type": "bridge", "bridge_name": "otb1", "egress": "nat", "managed": true,
            "subnet": "10.42.1.0/24", "mtu": 5, "colour": "red"});
        let error = parse(body.to_string().as_bytes()).unwrap_err().error;
        assert_eq!(error.code, ErrorCode::ValidationFailed);
        let fields: Vec<_> = error.details["fields"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields, ["bridge_name", "colour", "mtu", "name", "subnet"]);
        assert_eq!(error.details["fields"]["name"], json!(["must be a string"]));
    }

    #[test]
    fn rejects_a_body_that_is_not_an_object() {
        for body in [&b""[..], b"[]", b"nonsense", b"\xff"] {
            assert_eq!(parse(body).unwrap_err().error.code, ErrorCode::ValidationFailed);
        }
    }
}
