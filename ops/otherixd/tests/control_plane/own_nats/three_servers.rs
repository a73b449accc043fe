//! A cluster of three servers with TLS: the accounts are on all of them, what is revoked is cut off on all of them, the
//! loss of one is no loss, and answers of the servers reach nothing that they should not, from any of them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use otherix_identity::Creds;
use otherix_schemas::consumer::{ConsumerDraft, ConsumerView, CreateConsumer};
use otherix_schemas::log::CHECKPOINT_STREAM;
use otherix_schemas::user::{RevokeUser, UserById, UserRole};
use otherix_testkit::nats::NatsServer;
use otherix_testkit::wait::wait_for;
use otherix_transport::Nats;
use otherix_transport::transport::{Message, Subscription};
use serde_json::{Value, json};

use super::cluster::{OwnNats, Setup, claims, resigned};
use super::daemon::{OwnDaemon, connect, connects, jetstream, jetstream_at, keys, run, servers, shown};
use crate::accounts::attacks::targets;
use crate::accounts::users::{ask, register};
use crate::daemon::{DEADLINE, create, draft};

const STREAM: &str = "OTHERIX_EVENTS";
const SERVERS: usize = 3;

/// A subscription to the live feed on each server, as a person and as a node.
struct Watchers(Vec<(usize, &'static str, Nats, Subscription)>);

impl Watchers {
    async fn subscribe(nats: &OwnNats, daemon: &OwnDaemon) -> Self {
        let mut watchers = Vec::new();
        for server in 0..SERVERS {
            for (role, account) in [("viewer", "clients"), ("node", "nodes")] {
                let user = daemon.sign(role, account);
                let connection = Nats::once(&nats.endpoint(server, &user), "watcher", DEADLINE).await.unwrap();
                let feed = connection.subscribe("live.otherix.evt.v1.>").await.unwrap();
                watchers.push((server, role, connection, feed));
            }
        }
        Self(watchers)
    }

    /// What each has received before an event about the network `name`, which is created now.
    async fn receive_until(&mut self, admin: &Nats, name: &str) -> Vec<String> {
        create(admin, &draft(name, name)).await;
        let mut before = Vec::new();
        for (server, role, _connection, feed) in &mut self.0 {
            loop {
                let arrived = tokio::time::timeout(DEADLINE, feed.next()).await.unwrap().unwrap();
                if String::from_utf8_lossy(&arrived.payload).contains(&format!("\"{name}\"")) {
                    break;
                }
                before.push(format!("{role} on {server}: {}", arrived.subject));
            }
        }
        before
    }
}

/// The requests of users that are answered, with the live feed as their reply subject. Returns how many.
async fn attack(nats: &OwnNats, daemon: &OwnDaemon, ann: &Creds, server: usize) -> usize {
    let victim = daemon.admin().user().to_string();
    let victim = victim.as_str();
    let api = "$JS.events.API";
    let (me, node) = (ann.user(), daemon.sign("node", "nodes"));
    let attacks = [
        (ann, format!("{api}.DIRECT.GET.{STREAM}"), r#"{"seq":1}"#),
        (ann, format!("{api}.DIRECT.GET.{STREAM}"), r#"{"seq":999999}"#),
        (ann, format!("{api}.STREAM.INFO.{STREAM}"), ""),
        (ann, format!("{api}.CONSUMER.MSG.NEXT.{STREAM}.{me}"), r#"{"batch":1,"no_wait":true}"#),
        (ann, format!("otherix.req.v1.{me}.network.list"), "{}"),
        (&node, format!("otherix.req.v1.{}.event.list", node.user()), r#"{"after":0}"#),
        (&node, format!("otherix.hb.v1.{}", node.user()), "{}"),
    ];
    let connections = [
        Nats::once(&nats.endpoint(server, ann), "attacker", DEADLINE).await.unwrap(),
        Nats::once(&nats.endpoint(server, &node), "attacker", DEADLINE).await.unwrap(),
    ];
    let count = attacks.len();
    for (number, (creds, request, body)) in attacks.into_iter().enumerate() {
        let connection = connections.iter().find(|connection| connection.user() == *creds.user()).unwrap();
        let forged = Message { reply: Some(format!("live.otherix.evt.v1.forged.{number}")), ..message(&request, body) };
        connection.publish(forged).await.unwrap();
        // Into the stream, its administration, services, and what is another's.
        for target in targets(victim) {
            connection.publish(Message { reply: Some(target), ..message(&request, body) }).await.unwrap();
        }
        // The answer to the same request, after it: it is one that is answered.
        wait_for(DEADLINE, &request, async || {
            connection.request(message(&request, body), Duration::from_secs(2)).await
        })
        .await;
    }
    count
}

fn message(subject: &str, body: &'static str) -> Message {
    Message::new(subject.to_owned(), Bytes::from(body))
}

async fn every_attack(nats: &OwnNats, daemon: &OwnDaemon, ann: &Creds) -> usize {
    let mut count = 0;
    for server in 0..SERVERS {
        count += attack(nats, daemon, ann, server).await;
    }
    count
}

/// A durable consumer that has nothing to deliver yet: what it answers says so.
async fn make_consumer(nats: &OwnNats, creds: &Creds) {
    let draft = ConsumerDraft { name: "c".to_owned(), from: Some("new".to_owned()), ..ConsumerDraft::default() };
    let made: ConsumerView = ask::<CreateConsumer>(&connect(nats, creds).await, &draft).await;
    assert_eq!(made.pending, 0);
}

/// Runs another program of the workspace on the machine of the control plane.
async fn program(name: &str, daemon: &OwnDaemon, arguments: &[&str]) {
    let program = Path::new(env!("CARGO_BIN_EXE_otherixd")).with_file_name(name);
    assert!(program.exists(), "`cargo build --workspace` makes it");
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("OTHERIX_STATE", daemon.state()).env("HOME", daemon.state());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// Which server leads the stream of the account that these credentials are of.
async fn leader(nats: &OwnNats, creds: &Creds) -> usize {
    leader_of(nats, creds, STREAM).await
}

/// Which server leads a stream, of which each has a replica.
async fn leader_of(nats: &OwnNats, creds: &Creds, stream: &str) -> usize {
    let context = jetstream(nats, creds).await;
    wait_for(DEADLINE, "a leader", async || {
        let stream = context.get_stream(stream).await.map_err(|error| error.to_string())?;
        let cluster = stream.cached_info().cluster.clone().ok_or("no cluster")?;
        // Without a leader, for a moment, all are listed as replicas.
        let Some(name) = cluster.leader.clone() else { return Err("no leader".to_owned()) };
        assert_eq!(cluster.replicas.len() + 1, SERVERS, "{cluster:?}");
        name.strip_prefix('n').and_then(|number| number.parse::<usize>().ok()).map(|number| number - 1).ok_or(name)
    })
    .await
}

#[tokio::test]
async fn a_cluster_is_used_as_one_server_is() {
    let mut nats = OwnNats::start(Setup::CLUSTER).formed().await;
    let arguments = [servers(&nats), keys(&nats).to_vec()].concat();
    let mut daemon = OwnDaemon::new();
    // Without the CA, and with another one.
    let log = daemon.fail(&["--nats".to_owned(), nats.urls().replace("nats:", "tls:")]).await;
    assert!(log.contains("was not issued by") && log.contains("--nats-ca"), "{log}");
    let (ok, output, errors) = run(daemon.state(), &["accounts", "push"], &arguments).await;
    assert!(ok && output.contains("3 servers: ") && output.matches("3 none)").count() == 5, "{output}{errors}");
    daemon.start(&[arguments, vec!["--nats-replicas".to_owned(), "3".to_owned()]].concat()).await;

    // The command line tool finds the list of servers, and the CA, in the context of this machine.
    program("otherix", &daemon, &["network", "create", "net-cli", "--type", "overlay", "--subnet", "10.9.0.0/24"])
        .await;
    // And nodes get it in their tokens.
    let (token, node) = (shown(&nats.path("node.token")), nats.path("node"));
    program("otherix", &daemon, &["node", "join-token", "create", "--out", &token]).await;
    program("otherix-agent", &daemon, &["join", "--token-file", &token, "--name", "n", "--state", &shown(&node)]).await;
    let joined: Value = serde_json::from_slice(&std::fs::read(node.join("connection.json")).unwrap()).unwrap();
    assert_eq!(joined["server"], json!(nats.urls().replace("nats:", "tls:")));
    let admin = connect(&nats, &daemon.admin()).await;
    daemon.assert_stream_is_copy(&nats).await;
    let (relay, mirror) = (daemon.sign("relay", "control"), daemon.sign("mirror", "events"));
    let _three_replicas = (leader(&nats, &relay).await, leader(&nats, &mirror).await);
    // So do the checkpoints, the buckets of the state and their mirrors.
    leader_of(&nats, &mirror, CHECKPOINT_STREAM).await;
    for bucket in ["KV_OTHERIX_NETWORKS", "KV_OTHERIX_VMS", "KV_OTHERIX_NODES"] {
        for (role, account) in [("state", "control"), ("state-mirrors", "state")] {
            leader_of(&nats, &daemon.sign(role, account), bucket).await;
        }
    }

    // Nothing is forged, on whichever server who is.
    let (ann, creds) = register(&admin, "ann", UserRole::Operator).await;
    let mut watchers = Watchers::subscribe(&nats, &daemon).await;
    watchers.receive_until(&admin, "before").await;
    make_consumer(&nats, &creds).await;
    let attacks = every_attack(&nats, &daemon, &creds).await;
    assert_eq!(watchers.receive_until(&admin, "mapped").await, [""; 0], "after {attacks} attacks");
    daemon.assert_stream_is_copy(&nats).await;

    // Cut off on every server.
    let mut connections = Vec::new();
    for server in 0..SERVERS {
        connections.push(Nats::once(&nats.endpoint(server, &creds), "ann", DEADLINE).await.unwrap());
    }
    let begin = Instant::now();
    ask::<RevokeUser>(&admin, &UserById { id: ann.id }).await;
    for connection in &connections {
        wait_for(DEADLINE, "the end of the connection", async || !connection.is_connected()).await;
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    for server in 0..SERVERS {
        assert!(!connects(&nats, server, &creds).await, "server {server}");
    }

    // Commands go on without the leader of the stream, and so does the stream.
    let lost = leader(&nats, &relay).await;
    let viewer = daemon.sign("viewer", "clients");
    let watcher = Nats::once(&nats.endpoint((lost + 1) % SERVERS, &viewer), "watcher", DEADLINE).await.unwrap();
    let mut feed = watcher.subscribe("live.otherix.evt.v1.>").await.unwrap();
    watcher.settled().await.unwrap();
    nats.servers.get_mut(lost).unwrap().kill9();
    let view = create(&admin, &draft("after", "after")).await;
    let arrived = tokio::time::timeout(DEADLINE, feed.next()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&arrived.payload).contains("\"after\""), "{arrived:?}");
    let left = nats.servers.iter().filter(|server| server.is_running()).map(NatsServer::url).collect::<Vec<_>>();
    let context = jetstream_at(&nats, &left.join(","), &relay).await;
    wait_for(DEADLINE, "the stream", async || {
        let stream = context.get_stream(STREAM).await.map_err(|error| error.to_string())?;
        let last = stream.cached_info().state.last_sequence;
        if last >= view.generation.get() { Ok(()) } else { Err(format!("{last}")) }
    })
    .await;
    daemon.stop().await;
}

/// That the attacks would be seen: without the mappings they work, from each server to each other one.
#[tokio::test]
async fn without_the_mappings_the_live_feed_of_a_cluster_could_be_forged() {
    let nats = OwnNats::start(Setup::CLUSTER).formed().await;
    let arguments = [servers(&nats), keys(&nats).to_vec()].concat();
    let mut daemon = OwnDaemon::new();
    daemon.start(&arguments).await;
    let admin = connect(&nats, &daemon.admin()).await;
    let (_, creds) = register(&admin, "ann", UserRole::Operator).await;
    daemon.assert_stream_is_copy(&nats).await;
    for (role, account) in [("viewer", "clients"), ("node", "nodes")] {
        let account = daemon.sign(role, account).claims().body.issuer_account.clone().unwrap();
        let mut claims = claims(&nats.lookup(&account).await);
        claims["nats"]["mappings"] = json!({});
        nats.push(&resigned(&claims, &nats.operator)).await;
    }
    let mut watchers = Watchers::subscribe(&nats, &daemon).await;
    watchers.receive_until(&admin, "before").await;
    make_consumer(&nats, &creds).await;
    let attacks = every_attack(&nats, &daemon, &creds).await;
    let forged = watchers.receive_until(&admin, "unmapped").await;
    for server in 0..SERVERS {
        for role in ["viewer", "node"] {
            let seen = forged.iter().filter(|line| line.starts_with(&format!("{role} on {server}: "))).count();
            assert!(seen >= SERVERS, "{role} on {server}: {seen} of {attacks}: {forged:?}");
        }
    }
}
