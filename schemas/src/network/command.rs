//! Commands on networks.

use super::{NetworkById, NetworkDraft, NetworkView, NewNetwork};
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::id::NetworkId;
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType, parse_body};

/// The requests that change networks.
pub(crate) const COMMANDS: &[Request] = &[Request::of::<CreateNetwork>(), Request::of::<DeleteNetwork>()];

/// A command on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkCommand {
    Create {
        /// Generated for the request.
        network_id: NetworkId,
        network: NewNetwork,
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
