//! The state as key-value buckets: as the read models have it, to be watched with any client, and changed by nobody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::State;
use otherix_identity::Creds;
use otherix_schemas::bucket::{Bucket, key_of_id, key_of_name};
use otherix_schemas::id::{NodeId, UserUuid};
use otherix_schemas::network::{DeleteNetwork, NetworkById, NetworkView};
use otherix_schemas::node::JoinNode;
use otherix_schemas::request::Request;
use otherix_schemas::user::{CredentialView, GetCredential, RevokeUser, UserById, UserOrMyself, UserRole};
use otherix_testkit::python::nats_py;
use otherix_testkit::wait::wait_for;
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::accounts::users::{ask, register};
use crate::daemon::{DEADLINE, OtherixdProcess, call, create, draft, list_all, overlay};
use crate::examples;

/// A user's credentials file for the buckets.
pub(crate) async fn reader(daemon: &OtherixdProcess, name: &str, role: UserRole) -> (Uuid, PathBuf) {
    let (user, creds) = register(&daemon.connect("admin").await, name, role).await;
    let connection = daemon.connect_as(creds.clone()).await;
    let credential: CredentialView = ask::<GetCredential>(&connection, &UserOrMyself { id: None }).await;
    let state = Creds::new(credential.state_jwt.unwrap(), creds.key().clone()).unwrap();
    let path = daemon.state().join(format!("test-{name}.state.creds"));
    otherix_runtime::files::replace(&path, state.render().as_bytes()).unwrap();
    (user.id.uuid(), path)
}

/// The streams as the control plane's parts see them: the buckets, and their mirrors.
pub(crate) async fn contexts(daemon: &OtherixdProcess) -> [Context; 2] {
    let part = async |part: &str, account: &str| daemon.jetstream(&daemon.credentials_of_part(part, account)).await;
    [part("state", "control").await, part("state-mirrors", "state").await]
}

async fn state(context: &Context, bucket: Bucket) -> Option<State> {
    context.get_stream(bucket.stream()).await.ok().map(|stream| stream.cached_info().state.clone())
}

/// The entries of a bucket as a reader sees them.
async fn entries(daemon: &OtherixdProcess, file: &Path, bucket: Bucket) -> BTreeMap<String, Value> {
    let found = raw_entries(daemon, file, bucket).await;
    found.into_iter().map(|(key, entry)| (key, serde_json::from_str(&entry).unwrap())).collect()
}

/// The entries of a bucket as a reader sees them, as they are stored.
pub(crate) async fn raw_entries(daemon: &OtherixdProcess, file: &Path, bucket: Bucket) -> BTreeMap<String, String> {
    let script = "
import asyncio, json, sys
import creds, nats

async def main():
    client = await nats.connect(sys.argv[1], **creds.options(sys.argv[2]))
    while True:
        try:
            state = await client.jetstream().key_value(sys.argv[3])
            break
        except nats.js.errors.BucketNotFoundError:
            # It is being made.
            await asyncio.sleep(0.05)
    changes, found = await state.watchall(), {}
    while (entry := await changes.updates(timeout=5)) is not None:
        if entry.operation is None:
            found[entry.key] = entry.value.decode()
    print(json.dumps(found))
    await client.close()

asyncio.run(main())";
    let text = nats_py(script, &[&daemon.url().await, file.to_str().unwrap(), bucket.name()]).await;
    serde_json::from_str(&text).unwrap()
}

/// Waits until the bucket of networks has what `network.list` returns, under ids and names.
async fn networks_are_there(daemon: &OtherixdProcess, file: &Path) -> BTreeMap<String, Value> {
    let admin = daemon.connect("admin").await;
    let mut expected = BTreeMap::new();
    for view in list_all(&admin).await {
        expected.insert(key_of_id(view.id.uuid()), serde_json::to_value(&view).unwrap());
        expected.insert(key_of_name(&view.name.key()), serde_json::to_value(&view).unwrap());
    }
    wait_for(DEADLINE, "the entries", async || {
        let found = entries(daemon, file, Bucket::Networks).await;
        let views: BTreeMap<String, Value> =
            found.iter().map(|(key, value)| (key.clone(), value["data"].clone())).collect();
        if views == expected { Ok(found) } else { Err(found) }
    })
    .await
}

pub(crate) async fn delete(admin: &Nats, view: &NetworkView) {
    let body = NetworkById { id: view.id };
    let _: Value = call(admin, Request::of::<DeleteNetwork>(), &body, None).await.unwrap().data;
}

#[tokio::test]
async fn buckets_have_the_state_and_are_made_again() {
    let mut daemon = OtherixdProcess::start().await;
    let (_, file) = reader(&daemon, "ann", UserRole::Viewer).await;
    let admin = daemon.connect("admin").await;
    let kept = create(&admin, &draft("Net A", "br-a")).await;
    let deleted = create(&admin, &overlay("net-b")).await;
    networks_are_there(&daemon, &file).await;
    delete(&admin, &deleted).await;
    let found = networks_are_there(&daemon, &file).await;
    assert_eq!(found.len(), 2);
    assert!(found["name.net=20a"]["meta"]["position"].as_u64().unwrap() >= kept.generation.get());

    // A node joins: it is in its bucket, and networks wait for it.
    let node_id = NodeId::new(Uuid::now_v7());
    let node = daemon.node(node_id, "node-1").await;
    let body = json!({ "node_id": node_id, "name": "node-1" });
    let _: Value = call(&node, Request::of::<JoinNode>(), &body, None).await.unwrap().data;
    wait_for(DEADLINE, "the node", async || {
        let found = entries(&daemon, &file, Bucket::Nodes).await;
        if found.contains_key(&key_of_id(node_id.uuid())) && found.contains_key("name.node-1") {
            Ok(())
        } else {
            Err(found)
        }
    })
    .await;
    let before = networks_are_there(&daemon, &file).await;

    // A restart changes nothing; what is deleted is made again.
    let [control, mirrors] = contexts(&daemon).await;
    let sequence = state(&control, Bucket::Networks).await.unwrap().last_sequence;
    daemon.stop().await;
    daemon.start_again().await;
    assert_eq!(networks_are_there(&daemon, &file).await, before);
    assert_eq!(state(&control, Bucket::Networks).await.unwrap().last_sequence, sequence);
    mirrors.delete_stream(Bucket::Networks.stream()).await.unwrap();
    wait_for(DEADLINE, "the mirror", async || state(&mirrors, Bucket::Networks).await.ok_or(())).await;
    networks_are_there(&daemon, &file).await;
    control.delete_stream(Bucket::Networks.stream()).await.unwrap();
    wait_for(DEADLINE, "the bucket", async || state(&control, Bucket::Networks).await.ok_or(())).await;
    networks_are_there(&daemon, &file).await;
}

#[tokio::test]
async fn who_may_watch_changes_nothing() {
    let daemon = OtherixdProcess::start().await;
    let (user, file) = reader(&daemon, "ann", UserRole::Admin).await;
    let admin = daemon.connect("admin").await;
    let kept = create(&admin, &overlay("net-a")).await;
    let deleted = create(&admin, &overlay("net-b")).await;
    networks_are_there(&daemon, &file).await;
    delete(&admin, &deleted).await;
    let before = networks_are_there(&daemon, &file).await;
    let contexts = contexts(&daemon).await;
    let states = async || {
        let mut found = Vec::new();
        for context in &contexts {
            let info = context.get_stream(Bucket::Networks.stream()).await.unwrap().cached_info().clone();
            let State { messages, first_sequence, last_sequence, .. } = info.state;
            found.push((info.created, messages, first_sequence, last_sequence));
        }
        found
    };
    let streams = states().await;
    let events = daemon.assert_stream_is_copy().await;

    let keys = [key_of_id(kept.id.uuid()), key_of_id(deleted.id.uuid())];
    let arguments = [&daemon.url().await, file.to_str().unwrap(), keys[0].as_str(), keys[1].as_str()];
    let results = nats_py(include_str!("state_attacks.py"), &arguments).await;
    let results: BTreeMap<String, String> = serde_json::from_str(&results).unwrap();
    assert!(results.len() > 15 && results.values().all(|result| result == "refused"), "{results:?}");

    assert_eq!(states().await, streams, "a bucket was changed, or made again");
    assert_eq!(networks_are_there(&daemon, &file).await, before);
    assert_eq!(daemon.assert_stream_is_copy().await, events);
    let consumers: Vec<String> = {
        let stream = contexts[0].get_stream(Bucket::Networks.stream()).await.unwrap();
        vec![stream.cached_info().state.consumer_count.to_string()]
    };
    assert_eq!(consumers, ["1"], "there is the mirror's consumer only");

    // A revoked user is refused there, too.
    let _: Value =
        call(&admin, Request::of::<RevokeUser>(), &UserById { id: UserUuid::new(user) }, None).await.unwrap().data;
    let endpoint = NatsEndpoint::new(daemon.url().await, Credentials::load(&file).unwrap());
    wait_for(DEADLINE, "the refusal", async || {
        Nats::once(&endpoint, "test", DEADLINE).await.err().map(drop).ok_or("connected")
    })
    .await;
}

/// One user could fill the mirror with consumers that outlive it: nobody could watch any more.
#[tokio::test]
async fn consumers_end_without_a_subscriber_durable_ones_too() {
    let daemon = OtherixdProcess::start().await;
    let (_, file) = reader(&daemon, "ann", UserRole::Viewer).await;
    create(&daemon.connect("admin").await, &overlay("net-a")).await;
    networks_are_there(&daemon, &file).await;
    let script = "
import asyncio, json, sys
import creds, nats

API, STREAM = '$JS.API', 'KV_OTHERIX_NETWORKS'

async def main():
    client = await nats.connect(sys.argv[1], **creds.options(sys.argv[2]))
    async def create(name, **more):
        config = {'durable_name': name, 'name': name, 'deliver_subject': f'_INBOX_{creds.user(sys.argv[2])}.{name}',
                  'deliver_policy': 'all', 'ack_policy': 'none', **more}
        body = json.dumps({'stream_name': STREAM, 'config': config, 'action': 'create'}).encode()
        answer = await client.request(f'{API}.CONSUMER.CREATE.{STREAM}.{name}', body, timeout=5)
        return json.loads(answer.data)
    async def count():
        info = json.loads((await client.request(f'{API}.STREAM.INFO.{STREAM}', b'', timeout=5)).data)
        return info['state']['consumer_count']
    before = await count()
    default = await create('a')
    longer = await create('b', inactive_threshold=301 * 10**9)
    for number in range(5):
        assert 'error' not in await create(f'c{number}', inactive_threshold=10**9)
    for _ in range(300):
        left = await count() - before
        if left == 1:
            break
        await asyncio.sleep(0.1)
    print(json.dumps([default['config']['inactive_threshold'], longer.get('error', {}).get('description', ''), left]))
    await client.close()

asyncio.run(main())";
    let text = nats_py(script, &[&daemon.url().await, file.to_str().unwrap()]).await;
    let found: Value = serde_json::from_str(&text).unwrap();
    // 5 minutes, in ns; a longer time is refused; and only the one that may last so long is left.
    assert_eq!((&found[0], &found[2]), (&json!(300_000_000_000_u64), &json!(1)), "{found}");
    assert!(found[1].as_str().unwrap().contains("inactive threshold"), "{found}");
}

#[tokio::test]
async fn the_examples_watch_a_bucket() {
    let daemon = OtherixdProcess::start().await;
    let (_, file) = reader(&daemon, "ann", UserRole::Viewer).await;
    let admin = daemon.connect("admin").await;
    let first = create(&admin, &overlay("net-a")).await;
    networks_are_there(&daemon, &file).await;
    for (example, name) in [("watch_state.py", "net-py"), ("watch_state.mjs", "net-js")] {
        let present = list_all(&admin).await.len();
        let count = (present + 1).to_string();
        let arguments = ["OTHERIX_NETWORKS", count.as_str()];
        let watching = examples::run_with(&daemon, example, &arguments, &file);
        let changing = async { create(&admin, &overlay(name)).await };
        let (output, created) = tokio::join!(watching, changing);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        for id in [first.id, created.id] {
            assert!(text.lines().any(|line| line.starts_with(&key_of_id(id.uuid()))), "{example}: {text}");
        }
    }
}
