//! Permissions of users and nodes.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures::StreamExt as _;
use otherix_schemas::subject::{DECISIONS, STREAM};
use otherix_testkit::python::nats_py;
use otherix_testkit::wait::wait_for;
use otherix_transport::JetStream;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{DEADLINE, NatsFixture, publish};

const EVENT: &str = "otherix.evt.v1.network.created.a";
const OUTCOME: &str = "otherix.out.v1.node.reconciled.b";

/// Answers every request with the server's attestation of the caller; for the body `publish` it publishes an event
/// first.
async fn serve(fixture: &NatsFixture) -> JoinHandle<()> {
    let control = fixture.connect(&fixture.supervisor.users().control).await;
    let context = control.context();
    let mut requests = control.client().subscribe("otherix.req.v1.>").await.unwrap();
    control.client().flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if request.payload == "publish" {
                publish(&context, EVENT, "live").await;
            }
            let headers = request.headers.unwrap_or_default();
            let info = headers.get("Nats-Request-Info").map(ToString::to_string).unwrap_or_default();
            if let Some(reply) = request.reply {
                control.client().publish(reply, info.into()).await.unwrap();
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
async fn independent_client_reads_everything_and_writes_nothing() {
    let fixture = fixture_with_three_events().await;
    let server = serve(&fixture).await;

    let credentials = fixture.state().join("credentials/admin.json");
    let results =
        nats_py(include_str!("clients.py"), &[&fixture.supervisor.url(), credentials.to_str().unwrap()]).await;
    let results: Value = serde_json::from_str(&results).unwrap();

    let decisions = json!([[1, "one"], [3, "three"]]);
    assert_eq!(results["ordered"], decisions);
    assert_eq!(results["push"], decisions);
    assert_eq!(results["durable"], json!([3, 0]));
    assert_eq!(results["pull"], json!(["one", "two", "three"]));
    assert_eq!((&results["message"], &results["direct"]), (&json!("two"), &json!("three")));
    assert_eq!(results["live"], "live");
    for request in [&results["request"], &results["forged"]] {
        assert_eq!(
            (&request["acc"], &request["user"], &request["kind"]),
            (&json!("CLIENTS"), &json!("admin"), &json!("Client")),
            "{request}"
        );
    }
    let denied = results["denied"].as_object().unwrap();
    assert_eq!(denied.len(), 9);
    for (attempt, error) in denied {
        assert!(error.as_str().unwrap().to_lowercase().contains("permissions violation"), "{attempt}: {error}");
    }
    server.abort();
}

#[tokio::test]
async fn node_catches_up_and_receives_decisions() {
    let fixture = fixture_with_three_events().await;
    let node = fixture.connect(&fixture.supervisor.users().node).await;
    let mut live = node.client().subscribe("live.otherix.evt.v1.>").await.unwrap();
    node.client().flush().await.unwrap();

    let stream = node.context().get_stream_no_info(STREAM).await.unwrap();
    let config = pull::OrderedConfig {
        filter_subject: DECISIONS.into(),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: 2 },
        ..Default::default()
    };
    let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let message = tokio::time::timeout(DEADLINE, messages.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((message.payload.as_ref(), message.info().unwrap().stream_sequence), (b"three".as_slice(), 3));
    assert_eq!(stream.direct_get(3).await.unwrap().payload, "three");

    let control = fixture.connect(&fixture.supervisor.users().control).await;
    publish(&control.context(), OUTCOME, "four").await;
    publish(&control.context(), EVENT, "five").await;
    let message = tokio::time::timeout(DEADLINE, live.next()).await.unwrap().unwrap();
    assert_eq!(message.payload, "five");
}

/// The attack that the two accounts prevent: the server is made to publish a message of the stream to a subject chosen
/// by the attacker, as the reply.
#[tokio::test]
async fn replies_published_by_the_server_reach_no_stream() {
    let fixture = fixture_with_three_events().await;
    let control = fixture.connect(&fixture.supervisor.users().control).await;
    let mut requests = control.client().subscribe("otherix.req.v1.>").await.unwrap();
    control.client().flush().await.unwrap();
    let admin = fixture.connect(&fixture.supervisor.users().admin).await;
    let inject = async |admin: &JetStream, reply: &str| {
        let get = format!("$JS.API.DIRECT.GET.{STREAM}");
        admin.client().publish_with_reply(get, reply.to_owned(), r#"{"seq":3}"#.into()).await.unwrap();
    };

    inject(&admin, "otherix.evt.v1.network.deleted.a").await;
    inject(&admin, "otherix.req.v1.node.node.report").await;

    // The second reply arrives; the server processed it after the first.
    let request = tokio::time::timeout(Duration::from_secs(10), requests.next()).await.unwrap().unwrap();
    let info = request.headers.unwrap().get("Nats-Request-Info").unwrap().to_string();
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_ne!(info["kind"], "Client", "{info}");
    assert_eq!(info.get("user"), None);
    let stream = control.context().get_stream(STREAM).await.unwrap();
    assert_eq!(stream.cached_info().state.last_sequence, 3);
}

#[tokio::test]
async fn mirror_is_recreated_only_when_outdated() {
    let fixture = fixture_with_three_events().await;
    let first = fixture.mirror().await.created;
    fixture.ensure_mirror().await;
    assert_eq!(fixture.mirror().await.created, first);

    // The stream is lost and rebuilt with other events at the same sequences.
    let control = fixture.connect(&fixture.supervisor.users().control).await;
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
    let admin = fixture.connect(&fixture.supervisor.users().admin).await;
    let stream = admin.context().get_stream(STREAM).await.unwrap();
    assert_eq!(stream.direct_get(3).await.unwrap().payload, "another three");
}
