//! Subjects and bodies of requests and heartbeats, with the validation of drafts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use otherix_schemas::enrollment::{JoinTokenById, NewJoinToken, NewNodeKey, NodeToEnroll};
use otherix_schemas::network::{NetworkById, NetworkDraft, NetworkPageRequest};
use otherix_schemas::node::{Heartbeat, JoinRequest, NodeById, NodeReport};
use otherix_schemas::subject::RequestSubject;
use otherix_schemas::user::{UserAndKey, UserAndRole, UserById, UserDraft, UserOrMyself};
use otherix_schemas::value::Ipv4Subnet;
use otherix_schemas::vm::{VmById, VmDraft};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

fn parse<T: DeserializeOwned>(body: &[u8]) {
    let _valid_or_not = serde_json::from_slice::<T>(body);
}

fuzz_target!(|bytes: &[u8]| {
    // The first line is the subject, the rest the body.
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (subject, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if let Ok(subject) = std::str::from_utf8(subject)
        && let Ok(parsed) = subject.parse::<RequestSubject>()
    {
        assert_eq!(parsed.to_string(), subject);
    }
    if let Ok(object) = serde_json::from_slice::<Map<String, Value>>(body) {
        let (network, violations) = NetworkDraft::from_json(object.clone());
        let _accepted_or_not = violations.combine(network.check(Some(Ipv4Subnet::DEFAULT_MESH)));
        let (vm, violations) = VmDraft::from_json(object.clone());
        let _accepted_or_not = violations.combine(vm.check());
        let (user, violations) = UserDraft::from_json(object);
        let _accepted_or_not = violations.combine(user.check());
    }
    parse::<NetworkById>(body);
    parse::<NetworkPageRequest>(body);
    parse::<VmById>(body);
    parse::<UserById>(body);
    parse::<UserAndRole>(body);
    parse::<UserAndKey>(body);
    parse::<UserOrMyself>(body);
    parse::<NodeById>(body);
    parse::<JoinRequest>(body);
    parse::<NodeReport>(body);
    parse::<Heartbeat>(body);
    parse::<NewJoinToken>(body);
    parse::<JoinTokenById>(body);
    parse::<NodeToEnroll>(body);
    parse::<NewNodeKey>(body);
});
