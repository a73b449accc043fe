//! Reading of the events, by people and nodes. What they may do, and attacks, are tested on the whole control plane.

use futures::StreamExt as _;
use otherix_schemas::subject::{EVENTS_DOMAIN, STREAM};
use otherix_testkit::python::nats_py;
use otherix_testkit::wait::wait_for;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::super::accounts::AccountName;
use super::{DEADLINE, NatsFixture, publish};

const EVENT: &str = "otherix.evt.v1.network.created.a";
const OUTCOME: &str = "otherix.out.v1.node.reconciled.b";

/// Answers every request with the server's attestation of the caller; for the body `publish` it publishes an event
/// first.
async fn serve(fixture: &NatsFixture) -> JoinHandle<()> {
    let access = fixture.supervisor.access();
    let (relay, service) = (fixture.connect(&access.relay).await, fixture.connect(&access.people).await);
    let context = relay.context();
    let mut requests = service.client().subscribe("otherix.req.v1.*.network.get").await.unwrap();
    service.client().flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if request.payload == "publish" {
                publish(&context, EVENT, "live").await;
            }
            let headers = request.headers.unwrap_or_default();
            let info = headers.get("Nats-Request-Info").map(ToString::to_string).unwrap_or_default();
            if let Some(reply) = request.reply {
                service.client().publish(reply, info.into()).await.unwrap();
            }
        }
    })
}

async fn fixture_with_three_events() -> NatsFixture {
    let fixture = NatsFixture::start().await;
    let context = fixture.create_stream(1).await;
    fixture.ensure_mirror().await;
    publish(&context, EVENT, "one").await;
    publish(&context, OUTCOME, "two").await;
    publish(&context, EVENT, "three").await;
    wait_for(DEADLINE, "the mirror", async || match fixture.mirror().await.state {
        state if state.last_sequence == 3 => Ok(()),
        state => Err(state),
    })
    .await;
    fixture
}

#[tokio::test]
async fn independent_client_reads_everything() {
    let fixture = fixture_with_three_events().await;
    let server = serve(&fixture).await;

    let credentials = fixture.state().join("credentials/admin.creds");
    let results =
        nats_py(include_str!("clients.py"), &[&fixture.supervisor.url(), credentials.to_str().unwrap()]).await;
    let results: Value = serde_json::from_str(&results).unwrap();

    assert_eq!(results["stored"], json!([[1, EVENT, "one"], [2, OUTCOME, "two"], [3, EVENT, "three"]]));
    assert_eq!(results["from_2"], json!(["two", "three"]), "a batch of one message each");
    assert_eq!((&results["last"], &results["direct"]), (&json!(3), &json!("three")));
    assert_eq!(results["live"], "live");
    let account = fixture.supervisor.access().identity.account(AccountName::Clients).unwrap().to_string();
    for request in [&results["request"], &results["forged"]] {
        assert_eq!(
            (&request["acc"], &request["user"], &request["kind"]),
            (&json!(account), &results["user"], &json!("Client")),
            "{request}"
        );
    }
    server.abort();
}

#[tokio::test]
async fn nodes_receive_decisions_live() {
    let fixture = fixture_with_three_events().await;
    let node = fixture.connect_as("node").await;
    let mut live = node.client().subscribe("live.otherix.evt.v1.>").await.unwrap();
    node.client().flush().await.unwrap();
    let control = fixture.connect(&fixture.supervisor.access().relay).await;
    publish(&control.context(), OUTCOME, "four").await;
    publish(&control.context(), EVENT, "five").await;
    let message = tokio::time::timeout(DEADLINE, live.next()).await.unwrap().unwrap();
    assert_eq!(message.payload, "five");
}

#[tokio::test]
async fn mirror_is_recreated_only_when_outdated() {
    let fixture = fixture_with_three_events().await;
    let first = fixture.mirror().await.created;
    fixture.ensure_mirror().await;
    assert_eq!(fixture.mirror().await.created, first);

    // The stream is lost and rebuilt with other events at the same sequences.
    let control = fixture.connect(&fixture.supervisor.access().relay).await;
    control.context().delete_stream(STREAM).await.unwrap();
    let context = fixture.create_stream(3).await;
    assert_eq!(publish(&context, EVENT, "another three").await, 3);
    assert_eq!(publish(&context, EVENT, "another four").await, 4);
    fixture.ensure_mirror().await;

    let state = wait_for(DEADLINE, "the new mirror", async || {
        let state = fixture.mirror().await.state;
        if state.last_sequence == 4 { Ok(state) } else { Err(state) }
    })
    .await;
    assert_eq!((state.first_sequence, state.messages), (3, 2));
    assert_ne!(fixture.mirror().await.created, first);
    let admin = fixture.connect_as("admin").await;
    let events = async_nats::jetstream::with_domain(admin.client().clone(), EVENTS_DOMAIN);
    let stream = events.get_stream(STREAM).await.unwrap();
    assert_eq!(stream.direct_get(3).await.unwrap().payload, "another three");
}
