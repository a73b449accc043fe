//! From a request's body to a command. Whatever is wrong with a body is reported with its field.

use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::{NetworkId, NicId, VmId};
use otherix_schemas::network::{NetworkById, NetworkCommand, NetworkDraft};
use otherix_schemas::nic::GeneratedNic;
use otherix_schemas::node::{JoinRequest, NodeById, NodeCommand, NodeReport, REPORT_BYTES_MAX, REPORT_RESULTS_MAX};
use otherix_schemas::request::Request;
use otherix_schemas::value::Ipv4Subnet;
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::{VmById, VmCommand, VmDraft};
use otherix_transport::service::Call;
use serde_json::{Map, Value};
use uuid::Uuid;

/// What is drawn at random for each request, whether or not it needs it.
pub(super) struct Draw {
    /// Of what it makes.
    uuid: Uuid,
    /// Of the VM's NIC.
    nic: GeneratedNic,
}

impl Draw {
    /// A UUID of version 7 for the thing, so that things are in the order of their creation in every index; one of version 4
    /// for the NIC, whose first digits become the tap's name.
    pub(super) fn random() -> Self {
        let [a, b, c, ..] = Uuid::new_v4().into_bytes();
        let mac = u32::from_be_bytes([0, a, b, c]);
        Self { uuid: Uuid::now_v7(), nic: GeneratedNic { nic_id: NicId::new(Uuid::new_v4()), mac } }
    }
}

/// The command that a request asks for; what it needs at random is drawn.
pub(super) fn command(call: &Call, mesh: Ipv4Subnet, draw: Draw) -> Result<Command, ErrorBody> {
    let Draw { uuid, nic } = draw;
    match call.request {
        Request::NetworkCreate => {
            let (draft, violations) = NetworkDraft::from_json(call.json::<Map<String, Value>>()?);
            let network = violations.combine(draft.check(Some(mesh)))?;
            Ok(Command::Network(NetworkCommand::Create { network_id: NetworkId::new(uuid), network }))
        }
        Request::VmCreate => {
            let (draft, violations) = VmDraft::from_json(call.json::<Map<String, Value>>()?);
            let vm = violations.combine(draft.check())?;
            Ok(Command::Vm(VmCommand::Create { vm_id: VmId::new(uuid), nic, vm }))
        }
        Request::VmDelete => {
            let VmById { id } = call.json()?;
            Ok(Command::Vm(VmCommand::Delete { vm_id: id }))
        }
        Request::NetworkDelete => {
            let NetworkById { id } = call.json()?;
            Ok(Command::Network(NetworkCommand::Delete { network_id: id }))
        }
        Request::NodeDelete => {
            let NodeById { id } = call.json()?;
            Ok(Command::Node(NodeCommand::Remove { node_id: id }))
        }
        Request::NodeJoin => {
            let JoinRequest { node_id, name, mesh } = call.json()?;
            Ok(Command::Node(NodeCommand::Join { node_id, name, mesh }))
        }
        Request::NodeReport => report(call).map(|command| Command::Node(NodeCommand::RecordReport(command))),
        Request::NetworkGet
        | Request::NetworkFind
        | Request::NetworkList
        | Request::VmGet
        | Request::VmFind
        | Request::VmList
        | Request::NodeGet
        | Request::NodeFind
        | Request::NodeList => {
            Err(ErrorBody::new(ErrorCode::NotFound, format!("`{}` is no command", call.request.as_str())))
        }
    }
}

/// A report that one event can hold.
fn report(call: &Call) -> Result<NodeReport, ErrorBody> {
    let too_much = |what: &str| Violations::one("results", format!("a report has at most {what}: send several"));
    if call.body.len() > REPORT_BYTES_MAX {
        return Err(too_much(&format!("{REPORT_BYTES_MAX} bytes, not {}", call.body.len())).into());
    }
    let report: NodeReport = call.json()?;
    if report.results.len() > REPORT_RESULTS_MAX {
        return Err(too_much(&format!("{REPORT_RESULTS_MAX} results, not {}", report.results.len())).into());
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn create(body: &[u8]) -> Result<Command, ErrorBody> {
        let call = Call {
            request: Request::NetworkCreate,
            user: "admin".parse().unwrap(),
            body: body.to_vec().into(),
            idempotency_key: None,
            traceparent: None,
            stale: false,
        };
        command(&call, Ipv4Subnet::DEFAULT_MESH, Draw::random())
    }

    #[test]
    fn all_that_is_wrong_is_reported_with_its_field() {
        let body = json!({"name": 7, "type": "bridge", "bridge_name": "otb1", "egress": "nat", "managed": true,
            "subnet": "10.42.1.0/24", "mtu": 5, "colour": "red"});
        let error = create(body.to_string().as_bytes()).unwrap_err().error;
        assert_eq!(error.code, ErrorCode::ValidationFailed);
        let fields: Vec<_> = error.details["fields"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields, ["bridge_name", "colour", "mtu", "name", "subnet"]);
        assert_eq!(error.details["fields"]["name"], json!(["must be a string"]));
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for body in [&b""[..], b"[]", b"nonsense", b"\xff"] {
            let error = create(body).unwrap_err();
            assert_eq!(error.error.code, ErrorCode::ValidationFailed);
        }
    }
}
