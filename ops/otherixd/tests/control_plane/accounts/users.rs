//! Users from the request that creates them to their end: their credentials work, do what the role may, and end with a
//! change of the user, for clients that are connected as well as later.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use otherix_identity::{Creds, KeyKind, KeyPair};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::network::{CreateNetwork, ListNetworks, NetworkPageRequest};
use otherix_schemas::request::{PageRequest, Request, RequestType};
use otherix_schemas::user::{
    CallerView, CreateUser, CredentialView, GetCredential, ListUsers, Myself, RevokeUser, SetUserRole, UserAndRole,
    UserById, UserDraft, UserOrMyself, UserRole, UserView, WhoAmI,
};
use otherix_testkit::wait::wait_for;
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use serde_json::{Value, json};

use crate::daemon::{DEADLINE, OtherixdProcess, call, draft};

/// How fast a client must be cut off.
const WITHIN: Duration = Duration::from_secs(1);

pub(crate) async fn ask<R: RequestType>(connection: &Nats, body: &R::Body) -> R::Answer {
    call(connection, Request::of::<R>(), body, None).await.unwrap().data
}

/// Creates a user, and obtains its credentials.
pub(crate) async fn register(admin: &Nats, name: &str, role: UserRole) -> (UserView, Creds) {
    let key = KeyPair::generate(KeyKind::User).unwrap();
    let (name, role) = (name.to_owned(), role.as_str().to_owned());
    let draft = UserDraft { name, role, key: key.public_key().to_string(), expires_at: None };
    let user: UserView = ask::<CreateUser>(admin, &draft).await;
    let creds = credential(admin, &user, &key).await;
    (user, creds)
}

/// The credentials of a user as of now, for its key.
async fn credential(admin: &Nats, user: &UserView, key: &KeyPair) -> Creds {
    let view: CredentialView = ask::<GetCredential>(admin, &UserOrMyself { id: Some(user.id) }).await;
    Creds::new(view.jwt, key.clone()).unwrap()
}

async fn connects(url: &str, creds: &Creds) -> bool {
    let endpoint = NatsEndpoint::new(url, Credentials::Key(creds.clone().into()));
    Nats::once(&endpoint, "test", DEADLINE).await.is_ok()
}

/// Waits until the server ends a connection that is not made again. Returns the time that it took.
async fn cut_off(connection: &Nats, begin: Instant) -> Duration {
    wait_for(DEADLINE, "the end of the connection", async || !connection.is_connected()).await;
    begin.elapsed()
}

async fn once(url: &str, creds: &Creds) -> Nats {
    let endpoint = NatsEndpoint::new(url, Credentials::Key(creds.clone().into()));
    Nats::once(&endpoint, "test", DEADLINE).await.unwrap()
}

#[tokio::test]
async fn credentials_work_as_long_as_their_user_is_as_it_was() {
    let mut daemon = OtherixdProcess::start().await;
    let (url, admin) = (daemon.url().await, daemon.connect("admin").await);
    let key = KeyPair::generate(KeyKind::User).unwrap();
    let (name, role) = ("ann".to_owned(), "viewer".to_owned());
    let new = UserDraft { name, role, key: key.public_key().to_string(), expires_at: None };
    let user: UserView = ask::<CreateUser>(&admin, &new).await;
    let viewer = credential(&admin, &user, &key).await;
    assert_eq!((viewer.role(), viewer.claims().name.as_str()), (Some("viewer"), "ann"));

    let ann = once(&url, &viewer).await;
    let me: CallerView = ask::<WhoAmI>(&ann, &Myself {}).await;
    assert_eq!((me.name.as_str(), me.role.as_str()), ("ann", "viewer"));
    ask::<ListNetworks>(&ann, &NetworkPageRequest { kind: None, limit: None, cursor: None }).await;
    let refused = call::<Value>(&ann, Request::of::<ListUsers>(), &json!({}), None).await.unwrap_err();
    assert_eq!(refused.error.details["permission"], "user:read");
    let begin = Instant::now();
    let refused = call::<Value>(&ann, Request::of::<CreateNetwork>(), &draft("n", "b"), None).await.unwrap_err();
    assert!(begin.elapsed() < WITHIN, "a refusal is no time-out: {:?}", begin.elapsed());
    assert_eq!(refused.error.code, ErrorCode::PermissionDenied);
    assert_eq!(
        (&refused.error.details["permission"], &refused.error.details["role"]),
        (&json!("network:manage"), &json!("viewer"))
    );

    // Another role: the earlier credential ends, and the new one has the rights of the new role.
    let begin = Instant::now();
    ask::<SetUserRole>(&admin, &UserAndRole { id: user.id, role: UserRole::Operator }).await;
    let took = cut_off(&ann, begin).await;
    assert!(took < WITHIN, "{took:?}");
    assert!(!connects(&url, &viewer).await, "the credential of the earlier role still works");
    let promoted = credential(&admin, &user, &key).await;
    let ann = once(&url, &promoted).await;
    ask::<ListUsers>(&ann, &PageRequest { limit: None, cursor: None }).await;

    // Revoked: at once, and after a restart of everything.
    let begin = Instant::now();
    ask::<RevokeUser>(&admin, &UserById { id: user.id }).await;
    let took = cut_off(&ann, begin).await;
    assert!(took < WITHIN, "{took:?}");
    assert!(!connects(&url, &promoted).await);
    let refused =
        call::<Value>(&admin, Request::of::<GetCredential>(), &UserOrMyself { id: Some(user.id) }, None).await;
    assert_eq!(refused.unwrap_err().error.code, ErrorCode::NotFound);
    daemon.kill();
    daemon.wait_for_no_servers().await;
    daemon.start_again().await;
    assert!(!connects(&url, &promoted).await && !connects(&url, &viewer).await, "revocations are lost in a restart");
    assert!(connects(&url, &Creds::load(&daemon.credentials("admin")).unwrap()).await);
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The seeds in a file of keys or credentials.
fn seeds(path: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let is_seed = |line: &&str| line.len() == 58 && line.starts_with('S');
    text.lines().filter(is_seed).map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn no_secret_is_where_it_need_not_be() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let key = KeyPair::generate(KeyKind::User).unwrap();
    let (name, role) = ("ann".to_owned(), "viewer".to_owned());
    let new = UserDraft { name, role, key: key.public_key().to_string(), expires_at: None };
    let user: UserView = ask::<CreateUser>(&admin, &new).await;
    let creds = credential(&admin, &user, &key).await;
    assert!(
        call::<Value>(&daemon.connect_as(creds).await, Request::of::<CreateNetwork>(), &json!({}), None).await.is_err()
    );
    ask::<RevokeUser>(&admin, &UserById { id: user.id }).await;
    daemon.assert_stream_is_copy().await;

    let (secret, other): (Vec<PathBuf>, Vec<PathBuf>) = files(daemon.state()).into_iter().partition(|path| {
        let folders = [daemon.state().join("identity"), daemon.state().join("credentials")];
        let is_of_test = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("test-"));
        is_of_test || folders.iter().any(|folder| path.starts_with(folder))
    });
    let mut seeds: Vec<String> = secret.iter().flat_map(|path| seeds(path)).collect();
    assert!(seeds.len() > 15, "{} seeds in {secret:?}", seeds.len());
    seeds.push(key.seed().to_string());
    let processes = daemon.servers().into_iter().map(|pid| pid.to_string()).chain([daemon.pid().to_string()]);
    let command_lines = processes.map(|pid| PathBuf::from(format!("/proc/{pid}/cmdline")));
    assert!(other.iter().any(|path| path.ends_with("journal.db")), "{other:?}");
    for path in other.into_iter().chain(command_lines) {
        let content = fs::read(&path).unwrap();
        let found = seeds.iter().filter(|seed| content.windows(seed.len()).any(|window| window == seed.as_bytes()));
        assert_eq!(found.count(), 0, "a seed is in {}", path.display());
    }
}
