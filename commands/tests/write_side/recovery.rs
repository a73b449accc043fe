//! Recovery when the stream has events that the journal lacks: events are adopted byte for byte or not at all; a new
//! epoch that gives them up reuses no position, VNI or mesh address that they may have assigned.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use async_nats::jetstream::Context;
use otherix_commands::recovery::adopt::{self, AdoptError};
use otherix_commands::recovery::restore::{self, Evidence, RestoreError};
use otherix_commands::relay::{RelayError, survey};
use otherix_commands::store::{Batch, Entry, EventStore, LoadError, Replayed, SqliteStore, replay};
use otherix_runtime::SystemRuntime;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::position::{Epoch, Position};
use otherix_testkit::nats::NatsServer;
use otherix_transport::JetStream;
use serde_json::Value;

use super::relay::{Pipeline, assert_copy, connect, one_shot_relay};
use super::relay_repair::publish;
use super::support::{JournalFolder, RunningWriter, create, join, join_mesh};

/// A stream ahead of a backup: the stream and its journal have six events or more, the backup has the first three.
struct StreamAhead {
    server: NatsServer,
    connection: JetStream,
    context: Context,
    folder: JournalFolder,
    backup: JournalFolder,
}

pub(crate) fn copy(folder: &JournalFolder) -> JournalFolder {
    let backup = JournalFolder::new();
    folder.copy(backup.path());
    backup
}

pub(crate) async fn close(pipeline: Pipeline) {
    let journal = pipeline.writer.stop().await;
    pipeline.relay.await.unwrap().unwrap();
    journal.close().await;
}

impl StreamAhead {
    async fn new(more: usize) -> Self {
        let (server, folder) = (NatsServer::start(), JournalFolder::new());
        let connection = connect(&server).await;
        let pipeline = Pipeline::start(&folder, &connection).await;
        for name in ["a", "b", "c"] {
            pipeline.writer.execute(create(name)).await.unwrap();
        }
        pipeline.caught_up().await;
        close(pipeline).await;
        let backup = copy(&folder);
        let pipeline = Pipeline::start(&folder, &connection).await;
        pipeline.writer.execute(join("node-1")).await.unwrap();
        let creates = (1..more).map(async |n| pipeline.writer.execute(create(&format!("net-{n}"))).await.unwrap());
        futures::future::join_all(creates).await;
        pipeline.caught_up().await;
        close(pipeline).await;
        let context = connection.context();
        Self { server, connection, context, folder, backup }
    }
}

fn events(folder: &JournalFolder) -> String {
    folder.sql(
        "SELECT position, stream_id, stream_version, event_id, type, hex(body), recorded_at, hex(digest) FROM events",
    )
}

#[tokio::test]
async fn adopts_missing_events_byte_for_byte() {
    let ahead = StreamAhead::new(3).await;
    let mut journal = ahead.backup.open().await;
    let before = events(&ahead.backup);

    let plan = adopt::plan(&ahead.context, &journal).await.unwrap();

    assert_eq!((plan.head.get(), plan.until.get(), plan.events, plan.foreign), (3, 6, 3, 0));
    assert_eq!(events(&ahead.backup), before, "a plan changes nothing");
    for _ in 0..2 {
        adopt::execute(&ahead.context, &mut journal).await.unwrap();
        assert_eq!(events(&ahead.backup), events(&ahead.folder));
    }
    assert_eq!(adopt::plan(&ahead.context, &journal).await.unwrap().events, 0);
    journal.close().await;
    drop(journal);
    let pipeline = Pipeline::start(&ahead.backup, &ahead.connection).await;
    assert_eq!(pipeline.writer.execute(create("later")).await, Ok(7));
    pipeline.caught_up().await;
    assert_eq!(assert_copy(&ahead.server, &ahead.backup).await, 7);
    assert_eq!(pipeline.relayed.borrow().rebuilds, 0);
}

/// An event as an earlier version stored it, to follow `first`, a node's join, in the journal.
fn event_of_an_earlier_version(first: &Entry) -> Entry {
    let joined = EventEnvelope::decode(&first.body).unwrap();
    let golden: Value = serde_json::from_str(include_str!("../../../schemas/golden/node.reconciled.v1.json")).unwrap();
    let node = joined.event.stream_id().aggregate_id();
    let mut event = golden.clone();
    event["source"] = format!("/otherix/{}", joined.header.cluster).into();
    event["subject"] = format!("node/{node}").into();
    event["time"] = joined.header.time.to_string().into();
    event["sequence"] = Position::new(2).to_sequence().into();
    event["decisionprev"] = Position::new(1).to_sequence().into();
    event["streamversion"] = 2.into();
    event["data"]["node_id"] = node.into();
    let body = event.to_string();
    let envelope = EventEnvelope::decode(body.as_bytes()).unwrap();
    let type_name = golden["type"].as_str().unwrap().to_owned();
    Entry { type_name, ..Entry::new(&envelope, body.into(), first.digest) }
}

#[tokio::test]
async fn an_event_of_an_earlier_version_keeps_its_type() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let pipeline = Pipeline::start(&folder, &connection).await;
    pipeline.writer.execute(join("node-1")).await.unwrap();
    pipeline.caught_up().await;
    close(pipeline).await;
    let backup = copy(&folder);
    let journal = folder.open().await;
    let first = journal.read(Position::ZERO, 1).await.unwrap().remove(0);
    let entries = vec![event_of_an_earlier_version(&first)];
    assert_eq!(entries[0].type_name, "dev.otherix.node.reconciled.v1");
    journal.append(Position::new(1), &Batch { entries, ..Batch::default() }).await.unwrap();
    journal.close().await;
    drop(journal);

    // It is not taken for an alteration, and is relayed as it is.
    let pipeline = Pipeline::start(&folder, &connection).await;
    assert_eq!(pipeline.writer.execute(create("later")).await, Ok(3));
    pipeline.caught_up().await;
    assert_copy(&server, &folder).await;
    close(pipeline).await;
    // It is adopted as it is.
    let mut journal = backup.open().await;
    adopt::execute(&connection.context(), &mut journal).await.unwrap();
    assert_eq!(events(&backup), events(&folder));
    replay(&journal).await.unwrap();
    journal.close().await;
    drop(journal);
    folder.sql(
        "DROP TRIGGER events_are_never_changed; UPDATE events SET type = replace(type, 'v1', 'v2') WHERE position = 2",
    );
    let error = replay(&folder.open().await).await.unwrap_err();
    assert!(matches!(error, LoadError::Altered { column: "type", .. }), "{error}");
}

#[tokio::test]
async fn adopts_a_lost_journal_from_the_stream() {
    let ahead = StreamAhead::new(3).await;
    let new = JournalFolder::new();
    let empty = Arc::new(new.open().await);
    let error = one_shot_relay(&new, &empty, &ahead.connection, 0).run().await.unwrap_err();
    assert!(matches!(error, RelayError::Ahead { .. }), "the only copy must not be changed: {error}");
    empty.close().await;
    drop(empty);
    let mut journal = new.open().await;
    adopt::execute(&ahead.context, &mut journal).await.unwrap();
    assert_eq!(events(&new), events(&ahead.folder));
    assert_eq!(new.sql("SELECT cluster, epoch FROM meta"), ahead.folder.sql("SELECT cluster, epoch FROM meta"));
    replay(&journal).await.unwrap();
}

#[tokio::test]
async fn adoption_can_be_interrupted_anywhere() {
    let ahead = StreamAhead::new(2_500).await;
    let mut interrupted = 0;
    for polls in (5..).step_by(8) {
        let mut journal = ahead.backup.open().await;
        let mut left = polls;
        let done = {
            let mut adoption = pin!(adopt::execute(&ahead.context, &mut journal));
            std::future::poll_fn(|context| {
                left -= 1;
                if left == 0 { std::task::Poll::Ready(None) } else { adoption.as_mut().poll(context).map(Some) }
            })
            .await
        };
        // As when the process ends.
        journal.close().await;
        match done {
            None => interrupted += 1,
            Some(done) => {
                done.unwrap();
                break;
            }
        }
    }
    assert!(interrupted > 2, "{interrupted} interruptions are too few");
    assert_eq!(events(&ahead.backup), events(&ahead.folder));
}

#[tokio::test]
async fn adopts_nothing_from_a_diverged_stream() {
    let ahead = StreamAhead::new(3).await;
    let other = RunningWriter::start(ahead.backup.open().await).await;
    other.execute(create("x")).await.unwrap();
    let journal = other.stop().await;
    let error = adopt::plan(&ahead.context, journal.as_ref()).await.unwrap_err();
    assert!(matches!(error, AdoptError::Differs { position, .. } if position.get() == 4), "{error}");
    assert!(error.hint().unwrap().contains("--new-epoch"));
}

#[tokio::test]
async fn adopts_nothing_if_an_event_does_not_fit() {
    const ID: &str = "0198e8c4-0000-7000-8000-000000000002";
    let broken: [(&str, &str, &str); 4] = [
        ("\"streamversion\":1", "\"streamversion\":2", "stream_version"),
        ("\"decisionprev\":\"00000000000000000005\"", "\"decisionprev\":\"00000000000000000004\"", "decisionprev"),
        ("\"epoch\":1", "\"epoch\":2", "epoch"),
        ("\"time\":\"2", "\"time\":\"1", "recorded_at"),
    ];
    for (from, to, what) in broken {
        let ahead = StreamAhead::new(3).await;
        let last = ahead.folder.sql("SELECT body FROM events WHERE position = 6");
        let id = ahead.folder.sql("SELECT event_id FROM events WHERE position = 6");
        let network = ahead.folder.sql("SELECT substr(stream_id, 9) FROM events WHERE position = 6");
        let event = last.trim().replace(from, to).replace(id.trim(), ID).replace(network.trim(), ID);
        let event = event.replace("\"00000000000000000006\"", "\"00000000000000000007\"");
        let event =
            if what == "decisionprev" { event } else { event.replace("00000000000000000005", "00000000000000000006") };
        publish(&ahead.connection, &format!("otherix.evt.v1.network.created.{ID}"), &event, Some(ID)).await;
        let journal = ahead.backup.open().await;

        let error = adopt::plan(&ahead.context, &journal).await.unwrap_err();

        let at = Position::new(7);
        assert!(
            matches!(error, AdoptError::Unfit { position, what: found } if (position, found) == (at, what)),
            "{error}"
        );
        assert_eq!(ahead.backup.sql("SELECT count(*) FROM events"), "3\n");
    }
}

async fn evidence(ahead: &StreamAhead, journal: &SqliteStore) -> Evidence {
    let streams = vec![survey(&ahead.context, journal).await.unwrap()];
    let last_epoch = journal.gaps().await.unwrap().last().map(|gap| gap.next);
    Evidence { streams, last_epoch, above: None }
}

async fn begin(journal: &mut SqliteStore, loaded: &Replayed, plan: &restore::RestorePlan) {
    restore::execute(journal, loaded, plan, "otherixd".parse().unwrap(), SystemRuntime::shared().as_ref())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_new_epoch_begins_above_every_assigned_position_and_vni() {
    let ahead = StreamAhead::new(3).await;
    let earlier = copy(&ahead.backup);
    let mut journal = ahead.backup.open().await;
    let loaded = replay(&journal).await.unwrap();

    let plan = restore::plan(&loaded, &evidence(&ahead, &journal).await).unwrap().unwrap();

    // Five networks have VNIs 1000 to 1004; a thousand more may have been acknowledged without having reached the
    // stream.
    assert_eq!((plan.epoch, plan.first.get(), plan.kept.get()), (Epoch::new(2), 1007, 3));
    assert_eq!(plan.given_up, Some((Position::new(4), Position::new(6))));
    assert_eq!(plan.highest_vni.map(|vni| vni.get()), Some(2004));
    assert_eq!(ahead.backup.sql("SELECT count(*) FROM events"), "3\n", "a plan changes nothing");
    begin(&mut journal, &loaded, &plan).await;
    let after = replay(&journal).await.unwrap();
    assert_eq!((after.state.position().get(), after.epoch), (1007, Epoch::new(2)));
    assert_eq!(ahead.backup.sql("SELECT epoch FROM meta"), "2\n");
    assert_eq!(restore::plan(&after, &evidence(&ahead, &journal).await).unwrap(), None, "the epoch has begun already");
    journal.close().await;
    drop(journal);

    let pipeline = Pipeline::start(&ahead.backup, &ahead.connection).await;
    assert_eq!(pipeline.writer.execute(create("new")).await, Ok(1008));
    pipeline.caught_up().await;
    assert_eq!(assert_copy(&ahead.server, &ahead.backup).await, 5);
    let last = ahead
        .backup
        .sql("SELECT json_extract(body, '$.data.vni', '$.epoch', '$.decisionprev') FROM events WHERE position = 1008");
    assert_eq!(last, "[2005,2,\"00000000000000001007\"]\n");
    assert_eq!(pipeline.relayed.borrow().rebuilds, 1);
    // A later start accepts the gap.
    let settled = pipeline.relayed.borrow().settled;
    close(pipeline).await;
    let pipeline = Pipeline::start(&ahead.backup, &ahead.connection).await;
    pipeline.caught_up().await;
    assert_eq!((pipeline.relayed.borrow().rebuilds, settled), (0, 1));
    close(pipeline).await;

    // A backup of the first epoch can adopt the second one as well.
    let mut journal = earlier.open().await;
    assert_eq!(adopt::plan(&ahead.context, &journal).await.unwrap().epoch, Epoch::new(2));
    adopt::execute(&ahead.context, &mut journal).await.unwrap();
    assert_eq!(events(&earlier), events(&ahead.backup));
    assert_eq!(journal.identity().epoch, Epoch::new(2));
}

#[tokio::test]
async fn a_new_epoch_reuses_no_mesh_address() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let pipeline = Pipeline::start(&folder, &connection).await;
    pipeline.writer.execute(join_mesh(1)).await.unwrap();
    pipeline.caught_up().await;
    close(pipeline).await;
    let backup = copy(&folder);
    let pipeline = Pipeline::start(&folder, &connection).await;
    assert_eq!(pipeline.writer.execute(join_mesh(2)).await, Ok(4), "joined and changed are one batch");
    pipeline.caught_up().await;
    close(pipeline).await;
    let (context, mut journal) = (connection.context(), backup.open().await);
    let loaded = replay(&journal).await.unwrap();
    let streams = vec![survey(&context, &journal).await.unwrap()];

    let plan = restore::plan(&loaded, &Evidence { streams, ..Evidence::default() }).unwrap().unwrap();

    // Node 2 has 10.42.0.2; a thousand more addresses may have been assigned.
    assert_eq!((plan.highest_mesh_address, plan.mesh_addresses_left_out), ("10.42.0.2".parse().ok(), 1000));
    begin(&mut journal, &loaded, &plan).await;
    journal.close().await;
    drop(journal);
    let writer = RunningWriter::start(backup.open().await).await;
    writer.execute(join_mesh(3)).await.unwrap();
    writer.stop().await.close().await;
    let addresses = "SELECT json_extract(body, '$.data.mesh.address') FROM events WHERE type LIKE '%node.changed.v1'";
    assert_eq!(backup.sql(addresses), "10.42.0.1\n10.42.3.235\n");
}

#[tokio::test]
async fn a_new_epoch_needs_a_reason() {
    let ahead = StreamAhead::new(3).await;
    let journal = ahead.folder.open().await;
    let loaded = replay(&journal).await.unwrap();
    let same = evidence(&ahead, &journal).await;
    assert!(matches!(restore::plan(&loaded, &same), Err(RestoreError::NotNeeded)));
    assert!(matches!(restore::plan(&loaded, &Evidence::default()), Err(RestoreError::NoEvidence)));
    let above =
        |above: u64| restore::plan(&loaded, &Evidence { above: Some(Position::new(above)), ..Evidence::default() });
    assert!(matches!(above(6_000_000_000), Err(RestoreError::TooFar { .. })));
    let plan = above(5_000).unwrap().unwrap();
    assert_eq!((plan.first.get(), plan.given_up), (5_001, None));
    assert_eq!(plan.highest_vni.map(|vni| vni.get()), Some(1004 + 4_994));
}
