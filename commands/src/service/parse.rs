//! From a request's body to a command. Whatever is wrong with a body is reported with its field.

use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::{NodeReport, REPORT_BYTES_MAX, REPORT_RESULTS_MAX};
use otherix_schemas::request::{JoinNode, NetworkById};
use otherix_schemas::rules;
use otherix_schemas::subject::Request;
use otherix_schemas::value::Ipv4Subnet;
use otherix_schemas::violations::Violations;
use otherix_transport::service::Call;
use serde_json::{Map, Value};

/// The command that a request asks for.
pub(super) fn command(
    call: &Call,
    mesh: Ipv4Subnet,
    network_id: impl FnOnce() -> NetworkId,
) -> Result<Command, ErrorBody> {
    match call.request {
        Request::NetworkCreate => {
            let (draft, mut violations) = rules::draft_from_json(call.json::<Map<String, Value>>()?);
            let checked = rules::check(&draft, Some(mesh));
            if let Err(more) = &checked {
                // A field whose value is of the wrong type is not also missing.
                let known: Vec<String> = violations.iter().map(|(field, _)| field.to_owned()).collect();
                for (field, rule) in more.iter().filter(|(field, _)| !known.iter().any(|known| known == field)) {
                    violations.add(field, rule);
                }
            }
            match checked {
                Ok(network) if violations.is_empty() => {
                    Ok(Command::CreateNetwork { network_id: network_id(), network })
                }
                Ok(_) | Err(_) => Err(violations.into()),
            }
        }
        Request::NetworkDelete => {
            let NetworkById { id } = call.json()?;
            Ok(Command::DeleteNetwork { network_id: id })
        }
        Request::NodeJoin => {
            let JoinNode { node_id, name } = call.json()?;
            Ok(Command::JoinNode { node_id, name })
        }
        Request::NodeReport => report(call).map(Command::RecordReport),
        Request::NetworkGet | Request::NetworkFind | Request::NetworkList => {
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
    use uuid::Uuid;

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
        command(&call, Ipv4Subnet::DEFAULT_MESH, || NetworkId::new(Uuid::nil()))
    }

    #[test]
    fn all_that_is_wrong_is_reported_with_its_field() {
        let body = json!({"name": 7, "type": "bridge", "bridge_name": "otb1", "egress": "nat", "managed": true,
            "subnet": "10.42.1.0/24", "mtu": 5, "colour": "red"});
        let error = create(body.to_string().as_bytes()).unwrap_err().error;
        assert_eq!(error.code, ErrorCode::ValidationFailed);
        let fields: Vec<_> = error.details["fields"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields, ["bridge_name", "colour", "mtu", "name", "subnet"]);
        assert_eq!(error.details["fields"]["name"], json!(["must be a text"]));
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for body in [&b""[..], b"[]", b"nonsense", b"\xff"] {
            let error = create(body).unwrap_err();
            assert_eq!(error.error.code, ErrorCode::ValidationFailed);
        }
    }
}
