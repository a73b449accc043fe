//! What is kept of refused commands, through the log that the service uses.

use otherix_runtime::SystemRuntime;
use otherix_schemas::network::{CreateNetwork, DeleteNetwork, ListNetworks};
use otherix_schemas::permission::Role;
use otherix_schemas::refusal::{NamedResource, REFUSALS_MAX};
use otherix_schemas::request::{Request, RequestType};
use otherix_schemas::user::CreateUser;
use otherix_schemas::value::UserKey;
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

#[tokio::test]
async fn whoever_floods_the_log_loses_its_own_attempts_only() {
    let recorded = Fixture::start();
    let (ann, bob) = (caller(1, Role::Operator), caller(2, Role::Developer));
    let about = |number: u128, other: u128| json!({ "id": Uuid::from_u128(number), "vm_id": Uuid::from_u128(other) });
    recorded.refuse::<DeleteNetwork>(&ann, &about(1, 0), ErrorCode::Conflict, 0);
    for number in 0..1_100 {
        recorded.refuse::<DeleteNetwork>(&bob, &about(1, 1_000 + number), ErrorCode::NotFound, SECOND);
        // As fast as they are stored: a queue that is full drops them.
        if number % 100 == 0 {
            recorded.list(by_id(0), Role::Viewer).await;
        }
    }

    let found = recorded.log.list(by_id(1), &ann).await.unwrap();
    assert_eq!((found.refusals.len(), found.is_truncated), (REFUSALS_MAX, true));
    let kept = [(1_000, 0), (1_099, 0), (1_100, 1), (2_099, 1)];
    for (number, count) in kept {
        assert_eq!(recorded.list(by_id(number), Role::Viewer).await.len(), count, "{number}");
    }
    assert_eq!(recorded.list(by_id(0), Role::Viewer).await, [("user-1 network.delete".to_owned(), 1)]);
}
