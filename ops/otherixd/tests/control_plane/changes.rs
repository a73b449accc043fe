//! Changes of networks: of two writers at once one gets both states and none a mixture, a repeated request is answered
//! as it was, and a dry run decides and records nothing.

use futures::future::join_all;
use otherix_schemas::change::{Applied, ChangeResult};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{
    ApplyNetwork, ChangeNetwork, NetworkApplyRequest, NetworkChangeRequest, NetworkDraft, NetworkView,
};
use otherix_schemas::position::Position;
use otherix_schemas::request::Request;
use otherix_transport::Nats;
use serde_json::{Value, json};

use super::daemon::{OtherixdProcess, call, create, draft, get};

type Changed = Result<Applied<NetworkView>, ErrorBody>;

async fn change(client: &Nats, id: NetworkId, if_generation: Option<Position>, changes: Value, key: &str) -> Changed {
    let changes = changes.as_object().unwrap().clone();
    let body = NetworkChangeRequest { id, if_generation, changes };
    call(client, Request::of::<ChangeNetwork>(), &body, Some(key)).await.map(|answer| answer.data)
}

#[tokio::test]
async fn of_two_writers_at_once_one_gets_both_states_and_none_a_mixture() {
    let daemon = OtherixdProcess::start().await;
    let (one, other) = (daemon.connect("admin").await, daemon.connect("admin").await);
    let mut network = create(&one, &draft("net", "br-a")).await;
    for round in 0..20_u32 {
        let generation = Some(network.generation);
        let keys = ["one", "other"].map(|writer| format!("{writer}-{round}"));
        let changes = json!({"mtu": 1400 + round, "labels": {"writer": "one"}});
        let others = json!({"vlan": round + 1, "labels": {"writer": "other"}});
        let (first, second) = tokio::join!(
            change(&one, network.id, generation, changes, &keys[0]),
            change(&other, network.id, generation, others, &keys[1]),
        );
        let (won, lost) = match (first, second) {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            both => panic!("not one of two: {both:?}"),
        };
        assert_eq!((lost.error.code, lost.error.code.status()), (ErrorCode::Conflict, 409));
        assert_eq!(lost.error.details["generation"], json!(won.resource.generation));
        assert_eq!(lost.error.details["current"]["labels"], json!(won.resource.labels));
        assert_ne!(lost.error.details["requested"]["labels"], json!(won.resource.labels));
        let now = get(&one, &network).await.unwrap();
        assert_eq!((now.generation, now.mtu, now.vlan), (won.resource.generation, won.resource.mtu, won.resource.vlan));
        let is_of_one = now.labels.get("writer") == Some("one");
        let differs = (now.mtu != network.mtu, now.vlan != network.vlan);
        assert_eq!(differs, (is_of_one, !is_of_one), "round {round}: {now:?}");
        network = now;
    }
}

#[tokio::test]
async fn definitions_applied_at_once_end_in_one_of_them() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let bodies: Vec<_> = (0..8_i64)
        .map(|number| NetworkApplyRequest {
            draft: NetworkDraft { mtu: Some(1400 + number), vlan: Some(1 + number), ..draft("net", "br-a") },
            if_generation: None,
        })
        .collect();
    let applied = bodies.iter().enumerate().map(async |(number, body)| {
        let key = format!("apply-{number}");
        let answer = call::<Applied<NetworkView>>(&admin, Request::of::<ApplyNetwork>(), body, Some(&key)).await;
        answer.unwrap().data
    });
    let applied = join_all(applied).await;
    let results = |result| applied.iter().filter(|applied| applied.result == result).count();
    assert_eq!((results(ChangeResult::Created), results(ChangeResult::Changed)), (1, 7));
    let last = applied.iter().max_by_key(|applied| applied.resource.generation).unwrap();
    let now = get(&admin, &last.resource).await.unwrap();
    assert_eq!((now.generation, now.mtu, now.vlan), (last.resource.generation, last.resource.mtu, last.resource.vlan));
    assert_eq!(i64::from(now.vlan.unwrap().get()), i64::from(now.mtu.get()) - 1399, "of one definition");
    // Repeated, as by a client that lost the answer, it is answered as it was, and changes nothing.
    for (number, (body, before)) in bodies.iter().zip(&applied).enumerate() {
        let key = format!("apply-{number}");
        let again = call::<Applied<NetworkView>>(&admin, Request::of::<ApplyNetwork>(), body, Some(&key)).await;
        assert_eq!(&again.unwrap().data, before);
    }
    assert_eq!(get(&admin, &now).await.unwrap(), now);
}
