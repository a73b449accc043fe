//! The server publishes an answer to whatever subject a request names, and checks no permission for that. From what
//! users may request, no such answer may reach the stream, its mirror, the live feed, a service, or others' consumers.

use std::fs;

use async_nats::jetstream::consumer::pull;
use otherix_identity::Creds;
use otherix_identity::jwt::{self, Account, Claims};
use otherix_schemas::consumer::{ConsumerDraft, ConsumerView, CreateConsumer};
use otherix_schemas::id::NodeId;
use otherix_schemas::request::Request;
use otherix_schemas::user::UserRole;
use otherix_testkit::wait::wait_for;
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use uuid::Uuid;

use super::user;
use super::users::register;
use crate::daemon::{DEADLINE, OtherixdProcess, call, create, draft};
use crate::raw_client::RawClient;

const STREAM: &str = "OTHERIX_EVENTS";

/// Subjects on which an answer would do harm.
pub(crate) fn targets(victim: &str) -> Vec<String> {
    let node = NodeId::new(Uuid::from_u128(7));
    [
        "otherix.evt.v1.network.deleted.x".to_owned(),
        "otherix.out.v1.node.reconciled.x".to_owned(),
        "otherix.adm.v1.user.created.x".to_owned(),
        "live.otherix.evt.v1.network.deleted.x".to_owned(),
        "live.otherix.out.v1.node.reconciled.x".to_owned(),
        "live.otherix.adm.v1.user.created.x".to_owned(),
        format!("otherix.req.v1.{victim}.network.delete"),
        format!("otherix.req.v1.{victim}.node.report"),
        format!("otherix.hb.v1.{node}"),
        format!("otherix.ask.v1.{victim}"),
        format!("otherix.ans.v1.{victim}"),
        format!("otherix.req.v1.{victim}.vm.write-console"),
        format!("$JS.API.STREAM.PURGE.{STREAM}"),
        format!("$JS.API.STREAM.DELETE.{STREAM}"),
        format!("$JS.API.CONSUMER.DELETE.{STREAM}.{victim}"),
        format!("$JS.events.API.CONSUMER.DELETE.{STREAM}.{victim}"),
        format!("$JS.events.API.CONSUMER.MSG.NEXT.{STREAM}.{victim}"),
        format!("$JS.ACK.{STREAM}.{victim}.1.1.1.1.0"),
        format!("control.js.CONSUMER.CREATE.{STREAM}"),
        "mirror.deliver.x".to_owned(),
        format!("deliver.{victim}.x"),
        "$SYS.REQ.CLAIMS.UPDATE".to_owned(),
    ]
    .into()
}

/// Requests of an administrator that are answered, with content or without.
fn triggers_of_people(me: &str) -> [(String, &'static str); 7] {
    let api = "$JS.events.API";
    [
        (format!("{api}.DIRECT.GET.{STREAM}"), r#"{"seq":1}"#),
        (format!("{api}.DIRECT.GET.{STREAM}"), r#"{"seq":999999}"#),
        (format!("{api}.CONSUMER.MSG.NEXT.{STREAM}.{me}"), r#"{"batch":1}"#),
        (format!("{api}.CONSUMER.MSG.NEXT.{STREAM}.{me}_1"), r#"{"batch":1,"no_wait":true}"#),
        (format!("{api}.STREAM.INFO.{STREAM}"), ""),
        (format!("otherix.req.v1.{me}.network.list"), r#"{"limit":1}"#),
        (format!("otherix.req.v1.{me}.network.get"), "{}"),
    ]
}

fn triggers_of_nodes(me: &str) -> [(String, &'static str); 2] {
    [(format!("otherix.req.v1.{me}.event.list"), r#"{"after":0}"#), (format!("otherix.hb.v1.{me}"), "{}")]
}

/// Sends every trigger with every target: as its reply subject, and as the subject on which the server is to trace it.
/// Waits until all were answered.
fn attack(client: &mut RawClient, triggers: &[(String, &str)], targets: &[String]) {
    for (trigger, body) in triggers {
        for target in targets {
            client.request(trigger, target, body);
            for only in ["", "Nats-Trace-Only: true\r\n"] {
                let headers = format!("NATS/1.0\r\nNats-Trace-Dest: {target}\r\n{only}\r\n");
                client.publish(trigger.as_bytes(), Some("traced"), headers.as_bytes(), body.as_bytes());
            }
        }
        let (answer, last) = (client.inbox("last"), client.inbox("last"));
        client.request(trigger, &answer, body);
        // The messages of a consumer have their own subjects.
        let arrived = client.wait_for(|subject, _| subject == last || subject.starts_with("otherix.evt."));
        // Some targets the server refuses by themselves. That the trigger is refused would mean that nothing is tried.
        let is_about_target = |error: &&String| targets.iter().any(|target| error.contains(target.as_str()));
        let other = arrived.errors.iter().find(|error| !is_about_target(error));
        assert_eq!(other, None, "the attack is not tried");
    }
}

/// A user's durable consumer on the mirror.
async fn consumer(daemon: &OtherixdProcess, name: &str) -> async_nats::jetstream::consumer::Consumer<pull::Config> {
    daemon.mirror().await.get_stream(STREAM).await.unwrap().get_consumer(name).await.unwrap()
}

/// An administrator with two durable consumers.
async fn admin_with_consumers(daemon: &OtherixdProcess, name: &str) -> Creds {
    let (_, creds) = register(&daemon.connect("admin").await, name, UserRole::Admin).await;
    let connection = daemon.connect_as(creds.clone()).await;
    for name in ["first", "second"] {
        let draft = ConsumerDraft { name: name.to_owned(), ..ConsumerDraft::default() };
        call::<ConsumerView>(&connection, Request::of::<CreateConsumer>(), &draft, None).await.unwrap();
    }
    creds
}

#[tokio::test]
async fn answers_of_the_server_reach_nothing() {
    let daemon = OtherixdProcess::start().await;
    let url = daemon.url().await;
    let admin = daemon.connect("admin").await;
    for number in 0..60 {
        create(&admin, &draft(&format!("n{number}"), &format!("b{number}"))).await;
    }
    let (attacker, victim) = (admin_with_consumers(&daemon, "ann").await, admin_with_consumers(&daemon, "bob").await);
    let node = user(&daemon, "node");
    let before = daemon.assert_stream_is_copy().await;
    // The second has nothing to deliver.
    let mut exhausted = consumer(&daemon, &format!("{}_1", attacker.user())).await;
    let mut messages =
        exhausted.fetch().max_messages(usize::try_from(daemon.position(before)).unwrap()).messages().await.unwrap();
    while let Some(message) = futures::StreamExt::next(&mut messages).await {
        message.unwrap().ack().await.unwrap();
    }
    wait_for(DEADLINE, "the acknowledgements", async || {
        let info = exhausted.info().await.unwrap();
        if info.num_pending == 0 && info.num_ack_pending == 0 { Ok(()) } else { Err(info.clone()) }
    })
    .await;

    let mut watchers = Vec::new();
    for (role, feed) in
        [("admin", "live.otherix.>"), ("viewer", "live.otherix.evt.v1.>"), ("node", "live.otherix.evt.v1.>")]
    {
        let mut watcher = RawClient::connect(&url, &user(&daemon, role));
        watcher.subscribe(feed, 2);
        watchers.push(watcher);
    }
    let mut watcher = RawClient::connect(&url, &victim);
    watcher.subscribe("live.otherix.>", 2);
    watcher.subscribe(&format!("deliver.{}.>", victim.user()), 3);
    watchers.push(watcher);
    for watcher in &mut watchers {
        assert!(watcher.settle().errors.is_empty());
    }

    let (targets, url) = (targets(victim.user().as_str()), url.clone());
    let attacking = tokio::task::spawn_blocking(move || {
        let mut client = RawClient::connect(&url, &attacker);
        attack(&mut client, &triggers_of_people(attacker.user().as_str()), &targets);
        let mut client = RawClient::connect(&url, &node);
        attack(&mut client, &triggers_of_nodes(node.user().as_str()), &targets);
    });
    attacking.await.unwrap();

    // The next event is the first thing that anybody receives.
    create(&admin, &draft("after", "after")).await;
    for watcher in &mut watchers {
        let arrived = watcher.wait_for(|subject, _| subject.starts_with("live."));
        let [(subject, event)] = arrived.messages.as_slice() else { panic!("{arrived:?}") };
        assert!(subject.starts_with("live.otherix.evt.v1.network.created."), "{subject}");
        assert!(String::from_utf8_lossy(event).contains("\"after\""), "{arrived:?}");
    }
    assert_eq!(daemon.assert_stream_is_copy().await, before + 1);
    let stream = daemon.stream().await.get_stream(STREAM).await.unwrap();
    assert_eq!(stream.cached_info().state.last_sequence, daemon.position(before + 1));
    let info = consumer(&daemon, victim.user().as_str()).await.info().await.unwrap().clone();
    assert_eq!((info.delivered.stream_sequence, info.ack_floor.stream_sequence), (0, 0), "{info:?}");
}

/// That the attacks above would be seen: without the mapping, one of them works.
#[tokio::test]
async fn without_its_mapping_the_live_feed_could_be_forged() {
    let daemon = OtherixdProcess::start().await;
    let url = daemon.url().await;
    let admin = daemon.connect("admin").await;
    create(&admin, &draft("one", "one")).await;
    daemon.assert_stream_is_copy().await;
    let (attacker, viewer) = (user(&daemon, "admin"), user(&daemon, "viewer"));
    let forge = "live.otherix.evt.v1.network.deleted.x";
    let attempt = || {
        let mut watcher = RawClient::connect(&url, &viewer);
        watcher.subscribe("live.otherix.evt.v1.>", 2);
        watcher.settle();
        let mut client = RawClient::connect(&url, &attacker);
        let (get, own) = (format!("$JS.events.API.DIRECT.GET.{STREAM}"), client.inbox("own"));
        client.request(&get, forge, r#"{"seq":1}"#);
        client.request(&get, &own, r#"{"seq":1}"#);
        client.wait_for(|subject, _| subject == own);
        watcher.settle().messages
    };
    assert!(attempt().is_empty());

    let clients = daemon.identity_key("account-clients").public_key().clone();
    let token = fs::read_to_string(daemon.state().join(format!("nats/accounts/{clients}.jwt"))).unwrap();
    let Claims { body, issued_at, .. } = jwt::decode::<Account>(token.trim()).unwrap();
    let unmapped = Account { mappings: Default::default(), ..body };
    let claims = Claims::new(&clients, "CLIENTS", issued_at + 1, unmapped);
    let token = jwt::encode(claims, &daemon.identity_key("operator-signing")).unwrap();
    let mut system = RawClient::connect(&url, &daemon.sign("claims", "system"));
    let answer = system.inbox("answer");
    system.request("$SYS.REQ.CLAIMS.UPDATE", &answer, &token);
    let answered = system.wait_for(|subject, _| subject == answer);
    assert!(String::from_utf8_lossy(&answered.messages[0].1).contains("\"code\":200"), "{answered:?}");

    let forged = attempt();
    assert!(forged.iter().any(|(subject, _)| subject == forge), "{forged:?}");
    // Who is not the control plane cannot have done that.
    let credentials = Credentials::load(&daemon.credentials("admin")).unwrap();
    let admin = Nats::once(&NatsEndpoint::new(url.as_str(), credentials), "test", DEADLINE).await.unwrap();
    create(&admin, &draft("two", "two")).await;
}
