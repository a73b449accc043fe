//! The guarantees of every implementation of [`Transport`](otherix_transport::transport::Transport): each check runs
//! over a `nats-server` and over the in-memory network.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::StreamExt;
use otherix_runtime::SeededRuntime;
use otherix_schemas::event::{EventPage, EventQuery, EventRange};
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Meta};
use otherix_testkit::nats::NatsServer;
use otherix_testkit::wait::wait_for;
use otherix_transport::memory::{Faults, MemoryConnection, MemoryNetwork};
use otherix_transport::service::Sender;
use otherix_transport::transport::{EndpointSpec, Headers, Message, RequestError, ServiceSpec, Subscription};
use otherix_transport::{Connection, Credentials, Nats, NatsEndpoint};
use serde_json::value::RawValue;

const DEADLINE: Duration = Duration::from_secs(20);

/// How long to wait for a message that must not arrive.
const QUIET_PERIOD: Duration = Duration::from_millis(200);

const EVENT: &str = "otherix.evt.v1.network.created.x";
const OUTCOME: &str = "otherix.out.v1.node.reconciled.x";

const REQUEST: &str = "otherix.req.v1.admin.network.list";

/// A messaging system with a connection of the control plane and one of a client.
struct World {
    control: Connection,
    client: Connection,
    system: System,
}

struct MemorySystem {
    network: MemoryNetwork,
    control: MemoryConnection,
    client: MemoryConnection,
}

/// Stored events with their subjects.
type Events = Arc<Mutex<Vec<(String, String)>>>;

enum System {
    Nats { server: Box<NatsServer>, events: Events },
    Memory(Box<MemorySystem>),
}

impl World {
    async fn nats() -> Self {
        let server = NatsServer::start_with_config(|store| {
            let store = store.display();
            format!(
                r#"
                jetstream {{ store_dir: "{store}" }}
                accounts {{
                  CONTROL {{
                    jetstream: enabled
                    users: [{{ user: otherixd, password: secret }}]
                    exports: [{{ service: "otherix.req.v1.>" }}, {{ stream: "live.otherix.>" }}]
                  }}
                  CLIENTS {{
                    users: [{{ user: admin, password: secret }}]
                    imports: [
                      {{ service: {{ account: CONTROL, subject: "otherix.req.v1.>" }}, share: true }}
                      {{ stream: {{ account: CONTROL, subject: "live.otherix.>" }} }}
                    ]
                  }}
                }}
                "#
            )
        });
        let connect = async |user: &str| {
            let credentials = Credentials::password(user.parse().unwrap(), "secret");
            let nats = Nats::lasting(&NatsEndpoint::new(server.url(), credentials), "test").await.unwrap();
            nats.settled().await.unwrap();
            nats
        };
        let (control, client) = (connect("otherixd").await, connect("admin").await);
        Self {
            control: control.into(),
            client: client.into(),
            system: System::Nats { server: Box::new(server), events: Events::default() },
        }
    }

    async fn memory() -> Self {
        let network = MemoryNetwork::new(SeededRuntime::with_timers(1), Faults::NONE);
        let (control, client) =
            (network.control("otherixd".parse().unwrap()), network.client("admin".parse().unwrap()));
        Self {
            control: control.connection(),
            client: client.connection(),
            system: System::Memory(Box::new(MemorySystem { network, control, client })),
        }
    }

    async fn create_stream(&self) {
        match &self.system {
            System::Nats { events, .. } => serve_events(&self.control, Arc::clone(events)).await,
            System::Memory(memory) => memory.network.create_stream(),
        }
    }

    fn append(&self, subject: &str, sequence: u64) {
        match &self.system {
            System::Nats { events, .. } => events.lock().unwrap().push((subject.to_owned(), event(sequence))),
            System::Memory(memory) => {
                let message = Message::new(subject.to_owned(), event(sequence));
                let appended = memory.network.append(message, Position::new(sequence - 1));
                assert_eq!(appended.unwrap(), Position::new(sequence));
            }
        }
    }

    fn cut(&mut self) {
        match &mut self.system {
            System::Nats { server, .. } => server.kill9(),
            System::Memory(memory) => {
                memory.control.cut();
                memory.client.cut();
            }
        }
    }

    fn restore(&mut self) {
        match &mut self.system {
            System::Nats { server, .. } => server.restart(),
            System::Memory(memory) => {
                memory.control.restore();
                memory.client.restore();
            }
        }
    }
}

/// The attributes of an event that a transport looks at.
fn event(sequence: u64) -> String {
    format!(r#"{{"sequence":"{sequence:020}"}}"#)
}

/// Answers `event.list` as the control plane does, two events at a time.
async fn serve_events(control: &Connection, events: Events) {
    let mut requests = control.serve(service("otherix.req.v1.*.event.list")).await.unwrap();
    control.settled().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let EventQuery { after, decisions_only, .. } = serde_json::from_slice(&request.message.payload).unwrap();
            let (page, head) = {
                let events = events.lock().unwrap();
                let stored = (1..).zip(events.iter()).skip_while(|(position, _)| *position <= after.get());
                let mut page = EventPage { complete_to: after, ..EventPage::default() };
                for (position, (subject, event)) in stored {
                    if page.events.len() == 2 {
                        break;
                    }
                    if !decisions_only || subject.starts_with("otherix.evt.") {
                        page.events.push(RawValue::from_string(event.clone()).unwrap());
                    }
                    page.complete_to = Position::new(position);
                }
                (page, Position::new(events.len() as u64))
            };
            let answer = serde_json::to_vec(&Answer { data: page, meta: Meta::at(head) }).unwrap();
            request.respond(Headers::new(), answer.into()).await.unwrap();
        }
    });
}

fn text(subject: &str, payload: &str) -> Message {
    Message::new(subject.to_owned(), payload.to_owned())
}

async fn receive(subscription: &mut Subscription) -> String {
    let message = tokio::time::timeout(DEADLINE, subscription.next()).await.unwrap().unwrap();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

async fn assert_silent(subscription: &mut Subscription) {
    assert!(tokio::time::timeout(QUIET_PERIOD, subscription.next()).await.is_err());
    assert_eq!(subscription.try_next(), None);
}

fn service(subject: &str) -> ServiceSpec {
    let endpoint = EndpointSpec {
        name: "list".to_owned(),
        subject: subject.to_owned(),
        metadata: HashMap::from([("a".into(), "b".into())]),
    };
    ServiceSpec {
        name: "test".to_owned(),
        description: "a service".to_owned(),
        version: "1.0.0".to_owned(),
        endpoints: vec![endpoint],
    }
}

async fn messages_arrive_in_order(world: World) {
    let mut exact = world.control.subscribe("a.b").await.unwrap();
    let mut wildcards = world.control.subscribe("a.>").await.unwrap();
    world.control.settled().await.unwrap();
    for n in 0..100 {
        world.control.publish(text("a.b", &n.to_string())).await.unwrap();
    }
    world.control.publish(text("a.b.c", "other")).await.unwrap();
    for n in 0..100 {
        assert_eq!(receive(&mut exact).await, n.to_string());
        assert_eq!(receive(&mut wildcards).await, n.to_string());
    }
    assert_eq!(receive(&mut wildcards).await, "other");
    assert_silent(&mut exact).await;
}

async fn messages_keep_headers_and_reply(world: World) {
    let mut subscription = world.control.subscribe("a").await.unwrap();
    world.control.settled().await.unwrap();
    let mut headers = Headers::new();
    headers.insert("X-Name", "value").unwrap();
    let sent = Message { reply: Some("inbox".into()), ..text("a", "body").with_headers(headers) };
    world.control.publish(sent.clone()).await.unwrap();
    world.control.publish(Message { reply: Some("inbox".into()), ..text("a", "bare") }).await.unwrap();
    assert_eq!(subscription.next().await, Some(sent));
    let bare = subscription.next().await.unwrap();
    assert_eq!((bare.headers.is_empty(), bare.reply), (true, Some("inbox".into())));
}

async fn a_queue_group_receives_each_message_once(world: World) {
    let mut members = [
        world.control.subscribe_in_group("a.*", "group").await.unwrap(),
        world.control.subscribe_in_group("a.*", "group").await.unwrap(),
    ];
    let mut outside = world.control.subscribe("a.*").await.unwrap();
    world.control.settled().await.unwrap();
    for n in 0..50 {
        world.control.publish(text("a.b", &n.to_string())).await.unwrap();
    }
    for n in 0..50 {
        assert_eq!(receive(&mut outside).await, n.to_string());
    }
    world.control.settled().await.unwrap();
    let received = members.iter_mut().map(|member| std::iter::from_fn(|| member.try_next()).count()).sum::<usize>();
    assert_eq!(received, 50);
}

async fn a_dropped_subscription_receives_nothing(world: World) {
    let subscription = world.client.subscribe("_INBOX_admin.x").await.unwrap();
    drop(subscription);
    world.client.settled().await.unwrap();
    let request = world.client.request(text("_INBOX_admin.x", ""), DEADLINE).await;
    assert!(matches!(request, Err(RequestError::NoResponders)));
}

async fn clients_receive_live_messages(world: World) {
    let mut live = world.client.subscribe("live.otherix.evt.v1.>").await.unwrap();
    world.client.settled().await.unwrap();
    world.control.publish(text("live.otherix.evt.v1.network.created.x", "event")).await.unwrap();
    assert_eq!(receive(&mut live).await, "event");
}

async fn a_request_gets_the_services_reply(world: World) {
    let mut requests = world.control.serve(service("otherix.req.v1.*.network.list")).await.unwrap();
    world.control.settled().await.unwrap();
    let serve = async {
        for n in ["one", "two"] {
            let request = requests.next().await.unwrap();
            assert_eq!((request.message.subject.as_str(), &request.message.payload[..]), (REQUEST, n.as_bytes()));
            assert_eq!(request.message.headers.get("X-Name").unwrap(), "value");
            let mut headers = Headers::new();
            headers.insert("X-Answer", "yes").unwrap();
            request.respond(headers, format!("{n}!").into()).await.unwrap();
        }
    };
    let call = async {
        for n in ["one", "two"] {
            let mut headers = Headers::new();
            headers.insert("X-Name", "value").unwrap();
            let reply = world.client.request(text(REQUEST, n).with_headers(headers), DEADLINE).await.unwrap();
            assert_eq!(
                (&reply.payload[..], reply.headers.get("X-Answer").unwrap()),
                (format!("{n}!").as_bytes(), "yes")
            );
        }
    };
    tokio::join!(serve, call);
}

async fn a_request_without_a_service_fails_at_once(world: World) {
    let request = world.client.request(text(REQUEST, ""), Duration::from_secs(600));
    let failed = tokio::time::timeout(DEADLINE, request).await.unwrap();
    assert!(matches!(failed, Err(RequestError::NoResponders)));
}

async fn a_request_without_a_reply_times_out(world: World) {
    let requests = world.control.serve(service("otherix.req.v1.*.network.list")).await.unwrap();
    world.control.settled().await.unwrap();
    let failed = world.client.request(text(REQUEST, ""), QUIET_PERIOD).await;
    assert!(matches!(failed, Err(RequestError::TimedOut)));
    drop(requests);
    world.control.settled().await.unwrap();
    wait_for(DEADLINE, "the service to end", async || {
        match world.client.request(text(REQUEST, ""), QUIET_PERIOD).await {
            Err(RequestError::NoResponders) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn services_receive_the_attested_sender(world: World) {
    let mut requests = world.control.serve(service("otherix.req.v1.*.network.list")).await.unwrap();
    world.control.settled().await.unwrap();
    let mut forged = Headers::new();
    for _ in 0..3 {
        forged.append("Nats-Request-Info", r#"{"acc":"CLIENTS","user":"viewer","kind":"Client"}"#).unwrap();
    }
    let request = world.client.request(text(REQUEST, "").with_headers(forged), DEADLINE);
    let serve = async {
        let request = requests.next().await.unwrap();
        let sender = Sender::attested(&request.message.headers).unwrap().user;
        request.respond(Headers::new(), sender.to_string().into()).await.unwrap();
    };
    let (reply, ()) = tokio::join!(request, serve);
    assert_eq!(&reply.unwrap().payload[..], b"admin");
}

async fn stored_events_are_read_from_a_position(world: World) {
    let range = |after, decisions_only| EventRange { after: Position::new(after), decisions_only };
    assert!(world.control.read_stream(range(0, false)).await.is_err(), "there is no stream");
    world.create_stream().await;
    assert!(world.control.read_stream(range(0, false)).await.unwrap().is_none(), "it is empty");
    for (sequence, subject) in (1..).zip([EVENT, OUTCOME, EVENT, OUTCOME, EVENT]) {
        world.append(subject, sequence);
    }
    for (range, expected) in [
        (range(0, false), vec![1, 2, 3, 4, 5]),
        (range(3, false), vec![4, 5]),
        (range(1, true), vec![3, 5]),
        (range(5, true), vec![]),
    ] {
        let mut found = Vec::new();
        if let Some(mut reader) = world.control.read_stream(range).await.unwrap() {
            loop {
                let next = tokio::time::timeout(DEADLINE, reader.next()).await.unwrap().unwrap().unwrap();
                found.push(next.sequence.get());
                assert_eq!(next.message.payload, event(next.sequence.get()));
                if next.pending == 0 {
                    break;
                }
            }
        }
        assert_eq!(found, expected, "{range:?}");
    }
}

async fn a_reader_continues_as_events_are_appended(world: World) {
    world.create_stream().await;
    world.append(EVENT, 1);
    let mut reader = world.control.read_stream(EventRange::default()).await.unwrap().unwrap();
    let mut next = async || tokio::time::timeout(DEADLINE, reader.next()).await.unwrap().unwrap().unwrap().sequence;
    assert_eq!(next().await, Position::new(1));
    world.append(EVENT, 2);
    assert_eq!(next().await, Position::new(2));
}

async fn a_lost_connection_is_reestablished(mut world: World) {
    let mut requests = world.control.serve(service("otherix.req.v1.*.network.list")).await.unwrap();
    let mut live = world.client.subscribe("live.otherix.>").await.unwrap();
    world.control.settled().await.unwrap();
    world.client.settled().await.unwrap();
    let (mut connects, mut control_connects) = (world.client.connects(), world.control.connects());
    let (before, control_before) = (*connects.borrow_and_update(), *control_connects.borrow_and_update());
    assert!(before > 0 && world.client.is_connected());

    world.cut();
    wait_for(DEADLINE, "the loss", async || if world.client.is_connected() { Err("connected") } else { Ok(()) }).await;
    world.restore();
    let again = tokio::time::timeout(DEADLINE, connects.wait_for(|connects| *connects > before)).await;
    again.unwrap().unwrap();
    let again = tokio::time::timeout(DEADLINE, control_connects.wait_for(|connects| *connects > control_before)).await;
    again.unwrap().unwrap();

    // Subscriptions and services outlive the connection.
    world.client.settled().await.unwrap();
    world.control.settled().await.unwrap();
    world.control.publish(text("live.otherix.evt.v1.a", "again")).await.unwrap();
    assert_eq!(receive(&mut live).await, "again");
    let serve = async { requests.next().await.unwrap().respond(Headers::new(), "here".into()).await.unwrap() };
    let (reply, ()) = tokio::join!(world.client.request(text(REQUEST, ""), DEADLINE), serve);
    assert_eq!(&reply.unwrap().payload[..], b"here");
}

macro_rules! conformance {
    ($($check:ident),+ $(,)?) => {
        mod nats {
            $(#[tokio::test] async fn $check() { super::$check(super::World::nats().await).await; })+
        }
        mod memory {
            $(#[tokio::test(start_paused = true)] async fn $check() {
                super::$check(super::World::memory().await).await;
            })+
        }
    };
}

conformance!(
    messages_arrive_in_order,
    messages_keep_headers_and_reply,
    a_queue_group_receives_each_message_once,
    a_dropped_subscription_receives_nothing,
    clients_receive_live_messages,
    a_request_gets_the_services_reply,
    a_request_without_a_service_fails_at_once,
    a_request_without_a_reply_times_out,
    services_receive_the_attested_sender,
    stored_events_are_read_from_a_position,
    a_reader_continues_as_events_are_appended,
    a_lost_connection_is_reestablished,
);
