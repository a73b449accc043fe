//! What is kept of refused commands, through the log that the service uses.

use std::collections::BTreeMap;
use std::fs;

use otherix_runtime::SystemRuntime;
use otherix_schemas::network::{CreateNetwork, DeleteNetwork, ListNetworks};
use otherix_schemas::permission::Role;
use otherix_schemas::refusal::{NamedResource, REFUSALS_MAX};
use otherix_schemas::request::{Request, RequestType};
use otherix_schemas::user::CreateUser;
use otherix_schemas::value::{UserId, UserKey};
use otherix_testkit::{TempDir, tempdir};
use serde_json::json;

use super::*;

const SECOND: i64 = 1_000_000;

struct Fixture {
    log: RefusalLog,
    _folder: TempDir,
}

impl Fixture {
    fn start() -> Self {
        let folder = tempdir().unwrap();
        let (log, recorder) = RefusalLog::open(&folder.path().join("refusals.db"), SystemRuntime::shared()).unwrap();
        tokio::spawn(recorder.run());
        Self { log, _folder: folder }
    }

    fn refuse<R: RequestType>(&self, caller: &Caller, body: &Value, code: ErrorCode, micros: i64) {
        let refusal = ErrorBody::new(code, format!("refused at {micros}"));
        let time = Timestamp::from_unix_micros(micros).unwrap();
        let (request, body) = (Request::of::<R>(), body.to_string());
        self.log.record(Denied { request, caller, body: body.as_bytes(), refusal: &refusal }, time);
    }

    async fn list(&self, query: RefusalQuery, role: Role) -> Vec<(String, u32)> {
        let found = self.log.list(query, &caller(9, role)).await.unwrap().refusals;
        found.into_iter().map(|found| (format!("{} {}", found.actor_name, found.request), found.count)).collect()
    }
}

fn caller(number: u8, role: Role) -> Caller {
    let key = UserKey::from_bytes([number; 32]);
    Caller { key: (&key).into(), id: (&key).into(), name: format!("user-{number}"), role, expires_at: None }
}

fn by_id(number: u128) -> RefusalQuery {
    RefusalQuery { ids: vec![Uuid::from_u128(number)], named: None }
}

#[tokio::test]
async fn attempts_are_found_by_id_and_name_and_repeated_ones_are_counted() {
    let recorded = Fixture::start();
    let (ann, bob) = (caller(1, Role::Operator), caller(2, Role::Operator));
    let delete = |number: u128| json!({ "id": Uuid::from_u128(number) });
    for micros in [0, 59 * SECOND, 118 * SECOND, 179 * SECOND] {
        recorded.refuse::<DeleteNetwork>(&ann, &delete(1), ErrorCode::Conflict, micros);
    }
    recorded.refuse::<DeleteNetwork>(&ann, &delete(1), ErrorCode::PermissionDenied, 179 * SECOND);
    recorded.refuse::<DeleteNetwork>(&bob, &delete(1), ErrorCode::Conflict, 179 * SECOND);
    recorded.refuse::<DeleteNetwork>(&bob, &delete(2), ErrorCode::NotFound, 180 * SECOND);
    recorded.refuse::<CreateNetwork>(&bob, &json!({ "name": "Net-A" }), ErrorCode::Conflict, 181 * SECOND);
    recorded.refuse::<CreateUser>(&bob, &json!({ "name": "net-a" }), ErrorCode::Conflict, 182 * SECOND);
    // No attempts: a query, what is tried again, what names nothing.
    recorded.refuse::<ListNetworks>(&bob, &delete(1), ErrorCode::ValidationFailed, 183 * SECOND);
    recorded.refuse::<DeleteNetwork>(&bob, &delete(1), ErrorCode::Unavailable, 183 * SECOND);
    recorded.refuse::<DeleteNetwork>(&bob, &json!({}), ErrorCode::ValidationFailed, 183 * SECOND);

    let own = |name: &str, count| (format!("{name} network.delete"), count);
    let of_first = [own("user-1", 3), own("user-1", 1), own("user-1", 1), own("user-2", 1)];
    assert_eq!(recorded.list(by_id(1), Role::Viewer).await, of_first);
    let named = |resource: &str| {
        let named = NamedResource { resource: resource.to_owned(), name: "NET-a".to_owned() };
        RefusalQuery { ids: vec![Uuid::from_u128(2)], named: Some(named) }
    };
    let created = ("user-2 network.create".to_owned(), 1);
    assert_eq!(recorded.list(named("network"), Role::Viewer).await, [own("user-2", 1), created.clone()]);
    assert_eq!(recorded.list(named("user"), Role::Viewer).await, [own("user-2", 1)]);
    let of_user = ("user-2 user.create".to_owned(), 1);
    assert_eq!(recorded.list(named("user"), Role::Admin).await, [own("user-2", 1), of_user.clone()]);
    let all = recorded.list(RefusalQuery::default(), Role::Admin).await;
    assert_eq!(all, [&of_first[..], &[own("user-2", 1), created, of_user]].concat());
    let too_many = RefusalQuery { ids: vec![Uuid::nil(); 65], named: None };
    let refused = recorded.log.list(too_many, &ann).await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::ValidationFailed);
}

fn about(number: u128, other: u128) -> Value {
    json!({ "id": Uuid::from_u128(number), "vm_id": Uuid::from_u128(other) })
}

/// The refusals that a query finds, by caller.
async fn found_of(recorded: &Fixture, query: RefusalQuery) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for (line, _) in recorded.list(query, Role::Admin).await {
        *found.entry(line.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    found
}

fn counts(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn whoever_floods_the_log_loses_and_hides_its_own_attempts_only() {
    let recorded = Fixture::start();
    let [ann, bob, cid] = [1, 2, 3].map(|number| caller(number, Role::Developer));
    recorded.refuse::<DeleteNetwork>(&ann, &about(1, 0), ErrorCode::Conflict, 0);
    for number in 0..1_100 {
        recorded.refuse::<DeleteNetwork>(&bob, &about(1, 1_000 + number), ErrorCode::NotFound, SECOND);
        if number % 10 == 0 {
            recorded.refuse::<DeleteNetwork>(&cid, &about(1, 5_000 + number), ErrorCode::NotFound, SECOND);
            // As fast as they are stored: they are dropped if too many wait.
            recorded.list(by_id(0), Role::Viewer).await;
        }
    }

    let found = recorded.log.list(by_id(1), &ann).await.unwrap();
    assert_eq!((found.refusals.len(), found.is_truncated), (REFUSALS_MAX, true));
    assert!(found.refusals.is_sorted_by_key(|refusal| refusal.time), "{found:?}");
    // Each has as many as anybody, the rest goes to those who have more.
    let shares = counts(&[("user-1", 1), ("user-2", 100), ("user-3", 99)]);
    assert_eq!(found_of(&recorded, by_id(1)).await, shares);
    assert_eq!(found_of(&recorded, RefusalQuery::default()).await, shares);
    let kept = [(1_000, 0), (1_099, 0), (1_100, 1), (2_099, 1)];
    for (number, count) in kept {
        assert_eq!(recorded.list(by_id(number), Role::Viewer).await.len(), count, "{number}");
    }
    assert_eq!(recorded.list(by_id(0), Role::Viewer).await, [("user-1 network.delete".to_owned(), 1)]);
}

#[tokio::test]
async fn whoever_has_most_waiting_is_dropped_first() {
    let folder = tempdir().unwrap();
    let (log, recorder) = RefusalLog::open(&folder.path().join("refusals.db"), SystemRuntime::shared()).unwrap();
    let recorded = Fixture { log, _folder: folder };
    let [ann, bob, cid] = [1, 2, 3].map(|number| caller(number, Role::Developer));
    recorded.refuse::<DeleteNetwork>(&cid, &about(1, 1), ErrorCode::NotFound, 0);
    for number in 0..3_000 {
        recorded.refuse::<DeleteNetwork>(&bob, &about(2, 1_000 + number), ErrorCode::NotFound, SECOND);
    }
    for number in 0..50 {
        recorded.refuse::<DeleteNetwork>(&ann, &about(1, 100 + number), ErrorCode::NotFound, SECOND);
    }
    tokio::spawn(recorder.run());
    assert_eq!(found_of(&recorded, by_id(1)).await, counts(&[("user-1", 50), ("user-3", 1)]));
    // The first ones of the flood are kept.
    for (number, count) in [(1_000, 1), (1_900, 1), (2_100, 0), (3_999, 0)] {
        assert_eq!(recorded.list(by_id(number), Role::Viewer).await.len(), count, "{number}");
    }
}

fn refusal(caller: u8, number: i64) -> Refusal {
    Refusal {
        time: Timestamp::from_unix_micros(number).unwrap(),
        actor: UserId::from(&UserKey::from_bytes([caller; 32])).to_string(),
        actor_name: format!("user-{caller}"),
        request: DeleteNetwork::NAME,
        ids: vec![Uuid::from_u128(u128::try_from(number).unwrap())],
        name: None,
        code: ErrorCode::NotFound,
        message: String::new(),
    }
}

/// The kept refusals of each caller, and the oldest of the first one.
fn kept(store: &RefusalStore) -> (BTreeMap<String, usize>, Vec<i64>) {
    let found = store.list(&RefusalQuery::default(), true).unwrap().refusals;
    let mut counts = BTreeMap::new();
    for refusal in &found {
        *counts.entry(refusal.actor_name.clone()).or_default() += 1;
    }
    let of_first = found.iter().filter(|refusal| refusal.actor_name == "user-1");
    (counts, of_first.map(|refusal| refusal.time.unix_micros()).collect())
}

/// As many as can be kept, many times over: by one caller in excess of its own limit, then by one within it.
#[test]
fn refusals_in_excess_are_those_of_the_caller_who_has_most() {
    let folder = tempdir().unwrap();
    let limits = Limits { of_actor: 40, all: 100 };
    let store = RefusalStore::open(&folder.path().join("refusals.db"), limits).unwrap();
    let record = |caller: u8, numbers: std::ops::Range<i64>| {
        let refusals: Vec<_> = numbers.map(|number| refusal(caller, number)).collect();
        for refusals in refusals.chunks(7) {
            store.record(refusals).unwrap();
        }
    };
    record(1, 0..3);
    record(2, 100..1_100);
    assert_eq!(kept(&store), (counts(&[("user-1", 3), ("user-2", 40)]), vec![0, 1, 2]));
    for caller in 3..6 {
        record(caller, 2_000..3_000);
    }
    let (found, of_first) = kept(&store);
    assert_eq!(found.values().sum::<usize>(), 100);
    assert_eq!((found.get("user-1"), of_first), (Some(&3), vec![0, 1, 2]));
    assert!(found.iter().all(|(name, count)| name == "user-1" || (24..=25).contains(count)), "{found:?}");
}

/// The file is as an earlier version left it, or damaged: at the beginning, or later.
#[test]
fn a_file_of_an_earlier_version_is_continued_and_a_damaged_one_is_moved_aside() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("refusals.db");
    let store = RefusalStore::open(&path, Limits::default()).unwrap();
    store.record(&[refusal(1, 1), refusal(1, 2)]).unwrap();
    drop(store);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(
        "DROP TRIGGER refusal_added; DROP TRIGGER refusal_removed; DROP TABLE callers; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(db);
    let store = RefusalStore::open(&path, Limits { of_actor: 10, all: 2 }).unwrap();
    store.record(&[refusal(2, 3)]).unwrap();
    assert_eq!(kept(&store).1, [2]);
    drop(store);

    fs::write(&path, [0xa5; 50_000]).unwrap();
    let store = RefusalStore::open(&path, Limits::default()).unwrap();
    let numbers: Vec<_> = (0..1_000).map(|number| refusal(1, number)).collect();
    store.record(&numbers).unwrap();
    assert_eq!(fs::read(folder.path().join("refusals.db.unusable")).unwrap(), [0xa5; 50_000]);
    drop(store);

    // The header, with the version, is as it was.
    let mut bytes = fs::read(&path).unwrap();
    bytes[4_096..].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let store = RefusalStore::open(&path, Limits::default()).unwrap();
    let failed = store.record(&[refusal(1, 5)]).unwrap_err();
    assert!(matches!(failed, RefusalStoreError::Access(_)), "{failed}");
    store.record(&[refusal(1, 6)]).unwrap();
    assert_eq!(kept(&store).1, [6]);
    assert_eq!(fs::read(folder.path().join("refusals.db.unusable")).unwrap(), bytes);
}
