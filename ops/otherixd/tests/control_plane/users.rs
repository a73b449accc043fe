//! Users of the real control plane: changes are done or not, whatever is killed; who asked is in the events; what is
//! refused is in the log, at a bounded rate.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use otherix_schemas::error::ErrorCode;
use otherix_schemas::event::{EventPage, EventQuery, ListEvents};
use otherix_schemas::id::NodeId;
use otherix_schemas::network::CreateNetwork;
use otherix_schemas::request::{Answer, PageRequest, Request};
use otherix_schemas::user::{
    CallerView, CreateUser, DeleteUser, ListUsers, Myself, RevokeUser, UserById, UserDraft, UserStatus, UserView,
    WhoAmI,
};
use otherix_schemas::value::UserKey;
use otherix_testkit::tempdir;
use otherix_testkit::wait::wait_for;
use otherix_transport::Nats;
use serde_json::json;
use uuid::Uuid;

use super::daemon::{DEADLINE, OtherixdProcess, call, command};

/// A user with a key of its own.
fn draft(number: usize) -> UserDraft {
    let mut key = [0; 32];
    key.iter_mut().zip(number.to_be_bytes()).for_each(|(byte, of_number)| *byte = of_number);
    let key = UserKey::from_bytes(key).to_string();
    UserDraft { name: format!("user-{number}"), role: "admin".to_owned(), key, expires_at: None }
}

async fn create_user(admin: &Nats, number: usize) -> UserView {
    let key = format!("create-{number}");
    call(admin, Request::of::<CreateUser>(), &draft(number), Some(&key)).await.unwrap().data
}

async fn revoke_user(admin: &Nats, user: &UserView) -> UserView {
    let (body, key) = (UserById { id: user.id }, format!("revoke-{}", user.id));
    call(admin, Request::of::<RevokeUser>(), &body, Some(&key)).await.unwrap().data
}

async fn list_users(admin: &Nats) -> Vec<UserView> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageRequest { limit: Some(200), cursor };
        let answer: Answer<Vec<UserView>> = call(admin, Request::of::<ListUsers>(), &page, None).await.unwrap();
        all.extend(answer.data);
        cursor = answer.meta.next_cursor;
        if cursor.is_none() {
            return all;
        }
    }
}

fn sql(daemon: &OtherixdProcess, statement: &str) -> Vec<String> {
    let journal = daemon.state().join("journal.db");
    let output = Command::new("sqlite3").args(["-readonly", journal.to_str().unwrap(), statement]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn sigkill_leaves_each_change_of_a_user_done_or_not() {
    let mut daemon = OtherixdProcess::start().await;
    let (worker, admin) = (daemon.connect("admin").await, daemon.connect("admin").await);
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let work = async {
        let mut expected = BTreeMap::new();
        for number in 1.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let user = create_user(&worker, number).await;
            expected.insert(user.id, UserStatus::Active);
            if number % 2 == 0 {
                expected.insert(user.id, revoke_user(&worker, &user).await.status);
            }
            count.store(number, Ordering::SeqCst);
        }
        expected
    };
    let faults = async {
        for _ in 0..3 {
            let before = count.load(Ordering::SeqCst);
            wait_for(DEADLINE, "changes", async || count.load(Ordering::SeqCst) > before + 20).await;
            daemon.kill();
            daemon.wait_for_no_servers().await;
            daemon.start_again().await;
        }
        stop.store(true, Ordering::SeqCst);
    };
    let (mut expected, ()) = tokio::join!(work, faults);
    let listed = list_users(&admin).await;
    let first: Vec<_> = listed.iter().filter(|user| user.name.as_str() == "admin").collect();
    assert_eq!(first.len(), 1, "{first:?}");
    expected.insert(first[0].id, UserStatus::Active);
    let shown: BTreeMap<_, _> = listed.iter().map(|user| (user.id, user.status)).collect();
    assert_eq!(shown.len(), listed.len(), "a user is listed twice");
    assert_eq!(shown, expected);
    let created = sql(
        &daemon,
        "SELECT count(*), count(DISTINCT json_extract(body, '$.data.key')) FROM events
        WHERE type = 'dev.otherix.user.created.v1'",
    );
    assert_eq!(created, [format!("{0}|{0}", expected.len())]);
    daemon.assert_stream_is_copy().await;
}

#[tokio::test]
async fn events_name_their_actor_and_users_are_no_decisions() {
    let daemon = OtherixdProcess::start().await;
    let (admin, node) = (daemon.connect("admin").await, daemon.node(NodeId::new(Uuid::from_u128(1)), "node-1").await);
    let user = create_user(&admin, 1).await;
    let event =
        "SELECT json_extract(body, '$.actor'), json_extract(body, '$.actorname'), json_extract(body, '$.subject'),
        json_extract(body, '$.decisionprev') + 0 FROM events WHERE type = 'dev.otherix.user.created.v1'";
    let me: CallerView = call(&admin, Request::of::<WhoAmI>(), &Myself {}, None).await.unwrap().data;
    assert_eq!((me.name.as_str(), me.role.as_str()), ("admin", "admin"));
    let expected = [format!("system||user/{}|0", me.id), format!("{}|admin|user/{}|0", me.id, user.id)];
    assert_eq!(sql(&daemon, event), expected);
    let list = async |connection: &Nats, decisions_only| {
        let range = EventQuery { decisions_only, ..EventQuery::default() };
        let page: Answer<EventPage> = call(connection, Request::of::<ListEvents>(), &range, None).await.unwrap();
        assert_eq!(page.data.complete_to, page.meta.position);
        page.data.events.len()
    };
    assert_eq!((list(&admin, false).await, list(&admin, true).await), (4, 0));
    assert_eq!((list(&node, false).await, list(&node, true).await), (0, 0), "nodes see nothing of users");
}

#[tokio::test]
async fn refused_requests_are_logged_with_user_permission_and_host_at_a_bounded_rate() {
    const REQUESTS: usize = 300;
    let daemon = OtherixdProcess::start().await;
    // The server refuses what the role may not do: nothing arrives that could be logged.
    let node = daemon.node(NodeId::new(Uuid::from_u128(1)), "node-1").await;
    let refused = call::<serde_json::Value>(&node, Request::of::<CreateNetwork>(), &json!({}), None).await;
    let error = refused.unwrap_err().error;
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert_eq!((&error.details["permission"], &error.details["role"]), (&json!("network:manage"), &json!("node")));
    // Rightly signed, but without an event about the user.
    let creds = daemon.sign("admin", "clients");
    let key = creds.user().to_string();
    let unknown = daemon.connect_as(creds).await;
    for _ in 0..REQUESTS {
        let refused = call::<serde_json::Value>(&unknown, Request::of::<CreateNetwork>(), &json!({}), None).await;
        let error = refused.unwrap_err().error;
        assert!(error.code == ErrorCode::Unauthenticated && error.message.contains("knows no user"), "{error:?}");
    }
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("requests were refused")).collect();
    assert!((1..=4).contains(&lines.len()), "{lines:#?}");
    let user = format!("user=\"{key}\"");
    for part in [user.as_str(), "permission=\"network:manage\"", "host=\"127.0.0.1\"", "count=1"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert!(!log.contains("eyJ"), "a JWT is in the log");
}

#[tokio::test]
async fn sigkill_during_the_first_starts_leaves_one_admin() {
    let folder = tempdir().unwrap();
    let (credentials, partial) =
        (folder.path().join("credentials/admin.creds"), folder.path().join("credentials/admin.creds.partial"));
    let journal = folder.path().join("journal.db");
    let created = || {
        let query = CREATED_KEYS;
        let output = Command::new("sqlite3").args(["-readonly", journal.to_str().unwrap(), query]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let kill_when = async |reached: &dyn Fn() -> bool| {
        let mut process = command(folder.path(), "127.0.0.1:0").stderr(Stdio::null()).spawn().unwrap();
        while !reached() {
            assert!(process.try_wait().unwrap().is_none(), "it ended by itself");
            tokio::task::yield_now().await;
        }
        process.kill().unwrap();
        process.wait().unwrap();
    };
    // The partial file exists for a moment only, which may be missed.
    kill_when(&|| partial.exists() || credentials.exists()).await;
    kill_when(&|| !created().is_empty()).await;
    kill_when(&|| credentials.exists()).await;
    let mut daemon = OtherixdProcess::start_in(folder, &[]).await;
    let users = list_users(&daemon.connect("admin").await).await;
    let keys: Vec<_> = users.iter().map(|user| user.key.to_string()).collect();
    assert_eq!((keys.len(), &keys), (1, &sql(&daemon, CREATED_KEYS)));
    assert!(!daemon.state().join("credentials/admin.creds.partial").exists());

    // It is a user as any other.
    let admin = daemon.connect("admin").await;
    let first = UserById { id: users[0].id };
    let refused = call::<UserView>(&admin, Request::of::<RevokeUser>(), &first, None).await.unwrap_err();
    assert_eq!(refused.error.code, ErrorCode::Conflict);
    let creds = daemon.sign("admin", "clients");
    let other = UserDraft { key: creds.user().to_string(), ..draft(1) };
    call::<UserView>(&admin, Request::of::<CreateUser>(), &other, None).await.unwrap();
    let other = daemon.connect_as(creds).await;
    call::<UserView>(&other, Request::of::<DeleteUser>(), &first, None).await.unwrap();
    daemon.stop().await;
    daemon.start_again().await;
    let names: Vec<_> = list_users(&other).await.into_iter().map(|user| user.name.to_string()).collect();
    assert_eq!(names, ["user-1"], "a deleted one is not made again");
}

/// The keys with which users were created.
const CREATED_KEYS: &str = "SELECT body ->> '$.data.key' FROM events WHERE type = 'dev.otherix.user.created.v1'";
