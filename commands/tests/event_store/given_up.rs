//! Proofs of what a new epoch gives up, and of what a copied log has, against events that were changed.

use otherix_commands::recovery::given_up::{GivenUpEvent, GivenUpProof, prove};
use otherix_commands::store::{Entry, EventStore, MemoryStore};
use otherix_commands::tlog::{LogCheckError, TileStore, check_log};
use otherix_schemas::id::ClusterId;
use otherix_schemas::log::origin;
use otherix_schemas::position::{Epoch, Position};
use otherix_testkit::tempdir;
use otherix_tlog::{Checkpoint, Hash, RightEdge, SignatureKind, SignerKey, TileBuilder, TreeHead};
use uuid::Uuid;

use crate::sample::{Events, batch};

fn head(entries: &[Entry]) -> TreeHead {
    let mut edge = RightEdge::EMPTY;
    edge.append_all(entries.iter().map(|entry| Hash::of_leaf(&entry.body))).unwrap();
    edge.head()
}

fn given_up(entries: &[Entry]) -> Vec<GivenUpEvent> {
    let event = |entry: &Entry| GivenUpEvent { position: entry.position, leaf: Hash::of_leaf(&entry.body) };
    entries.iter().map(event).collect()
}

async fn store_of(cluster: ClusterId, entries: &[Entry]) -> MemoryStore {
    let store = MemoryStore::new(cluster);
    store.append(Position::ZERO, &batch(entries.to_vec())).await.unwrap();
    store
}

#[tokio::test]
async fn kept_and_given_up_events_have_the_signed_root() {
    const KEPT: usize = 600;
    let cluster = ClusterId::new(Uuid::now_v7());
    let all = Events::new(cluster).take(1_000);
    let store = store_of(cluster, &all[..KEPT]).await;
    let lost = given_up(&all[KEPT..]);
    let proof =
        async |lost: &[GivenUpEvent], checkpoint: TreeHead| prove(&store, lost, &[checkpoint]).await.unwrap()[0];
    for (size, kept, given_up) in [(1, 1, 0), (KEPT, 600, 0), (KEPT + 1, 600, 1), (999, 600, 399), (1_000, 600, 400)] {
        let found = proof(&lost, head(&all[..size])).await;
        assert_eq!(found, GivenUpProof::Proven { kept, given_up }, "{size}");
    }
    // Several at once, and none.
    let heads: Vec<_> = [7, 800].iter().map(|size| head(&all[..*size])).collect();
    let found = prove(&store, &lost, &heads).await.unwrap();
    assert_eq!(found[1], GivenUpProof::Proven { kept: 600, given_up: 200 });
    assert_eq!((found.len(), prove(&store, &lost, &[]).await.unwrap()), (2, Vec::new()));

    // One event given up is another, is missing, or is at another place.
    let whole = head(&all);
    let mut changed = lost.clone();
    changed[399].leaf = Hash::of_leaf(b"another");
    assert!(matches!(proof(&changed, whole).await, GivenUpProof::Contradicted { .. }));
    let mut swapped = lost.clone();
    (swapped[0].leaf, swapped[1].leaf) = (lost[1].leaf, lost[0].leaf);
    assert!(matches!(proof(&swapped, whole).await, GivenUpProof::Contradicted { .. }));
    let mut short = lost.clone();
    short.remove(100);
    assert_eq!(proof(&short, whole).await, GivenUpProof::Incomplete { found: 700 });
    assert_eq!(proof(&[], whole).await, GivenUpProof::Incomplete { found: 600 });
    // A kept one is another.
    let other = Events::new(cluster).take(KEPT);
    let store = store_of(cluster, &other).await;
    for checkpoint in [head(&all[..10]), whole] {
        let found = prove(&store, &lost, &[checkpoint]).await.unwrap();
        assert!(matches!(found[0], GivenUpProof::Contradicted { .. }), "{found:?}");
    }
}

fn key(cluster: ClusterId, epoch: u32) -> SignerKey {
    SignerKey::from_seed(origin(cluster, Epoch::new(epoch)).parse().unwrap(), SignatureKind::Note, &[7; 32])
}

fn sign(cluster: ClusterId, epoch: u32, head: TreeHead) -> String {
    let key = key(cluster, epoch);
    Checkpoint::new(key.public_key().name().clone(), head).sign(&key).unwrap().to_string()
}

/// Stores the log of these events, with a checkpoint of all of them.
fn write_log(path: &std::path::Path, cluster: ClusterId, epoch: u32, entries: &[Entry]) -> String {
    let (log, mut builder) = (TileStore::open(path).unwrap(), TileBuilder::default());
    builder.append_all(entries.iter().map(|entry| Hash::of_leaf(&entry.body))).unwrap();
    let mut tiles = builder.take_complete();
    tiles.extend(builder.partial());
    let note = sign(cluster, epoch, builder.head());
    log.begin(Epoch::new(epoch)).unwrap();
    log.store(Epoch::new(epoch), &tiles, Some(&note)).unwrap();
    note
}

#[tokio::test]
async fn a_log_is_checked_against_its_journal() {
    let (cluster, folder) = (ClusterId::new(Uuid::now_v7()), tempdir().unwrap());
    let mut events = Events::new(cluster);
    let all = events.take(900);
    let mut store = store_of(cluster, &all).await;
    let path = folder.path().join("log.db");
    let note = write_log(&path, cluster, 1, &all[..700]);
    let key = key(cluster, 1);
    let check = async |store: &MemoryStore| check_log(store, &path, key.public_key()).await;
    let found = check(&store).await.unwrap();
    assert_eq!((found.newest, found.contradictions), (Some((note.clone(), head(&all[..700]))), 0));

    let short = store_of(cluster, &all[..699]).await;
    let error = check(&short).await.unwrap_err();
    assert!(matches!(error, LogCheckError::Ahead { size: 700, events: 699 }), "{error}");
    let other = store_of(cluster, &Events::new(cluster).take(900)).await;
    let error = check(&other).await.unwrap_err();
    assert!(matches!(error, LogCheckError::Tile(_)), "{error}");
    let foreign = SignerKey::from_seed(key.public_key().name().clone(), SignatureKind::Note, &[8; 32]);
    let error = check_log(&store, &path, foreign.public_key()).await.unwrap_err();
    assert!(matches!(error, LogCheckError::Signature { epoch: Epoch::FIRST, .. }), "{error}");
    // The tiles fit, and the root that was signed is another.
    let log = TileStore::open(&path).unwrap();
    let wrong = sign(cluster, 1, TreeHead::new(700, Hash::of_leaf(b"another")).unwrap());
    log.store(Epoch::FIRST, &[], Some(&wrong)).unwrap();
    let error = check(&store).await.unwrap_err();
    assert!(matches!(error, LogCheckError::Root { size: 700, .. }), "{error}");
    // Known to the log already: it is evidence, and no reason to refuse.
    log.keep_contradiction(Epoch::FIRST, &wrong).unwrap();
    assert_eq!(check(&store).await.unwrap().contradictions, 1);

    // In the next epoch, the earlier one's newest checkpoint covers what was given up, or is of what was kept.
    let path = folder.path().join("next.db");
    let check = async |store: &MemoryStore| check_log(store, &path, key.public_key()).await;
    let first = events.next_epoch(100);
    store.begin_epoch(Position::new(900), &first, Epoch::new(2)).await.unwrap();
    let kept: Vec<_> = all.iter().cloned().chain([first]).collect();
    let note = write_log(&path, cluster, 2, &kept);
    let log = TileStore::open(&path).unwrap();
    let past = |size: u64, root: Hash| sign(cluster, 1, TreeHead::new(size, root).unwrap());
    log.store(Epoch::FIRST, &[], Some(&past(950, Hash::of_leaf(b"given up")))).unwrap();
    assert_eq!(check(&store).await.unwrap().newest, Some((note, head(&kept))));
    log.store(Epoch::FIRST, &[], Some(&past(800, *head(&all[..800]).root()))).unwrap();
    check(&store).await.unwrap();
    log.store(Epoch::FIRST, &[], Some(&past(800, Hash::of_leaf(b"another")))).unwrap();
    let error = check(&store).await.unwrap_err();
    assert!(matches!(error, LogCheckError::Root { epoch: Epoch::FIRST, size: 800 }), "{error}");
    log.store(Epoch::new(3), &[], Some(&note_of_third(cluster))).unwrap();
    let error = check(&store).await.unwrap_err();
    assert!(matches!(error, LogCheckError::LaterEpoch { .. }), "{error}");
    let none = check_log(&store, &folder.path().join("none.db"), key.public_key()).await;
    assert!(matches!(none, Err(LogCheckError::Tiles(_))));
}

fn note_of_third(cluster: ClusterId) -> String {
    sign(cluster, 3, TreeHead::EMPTY)
}
