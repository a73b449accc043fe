//! Users from the request that creates them to their end: their credentials work, do what the role may, and end with a
//! change of the user, for clients that are connected as well as later.

use std::time::{Duration, Instant};

use otherix_identity::{Creds, KeyKind, KeyPair};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::network::{CreateNetwork, ListNetworks, NetworkPageRequest};
use otherix_schemas::request::{Request, RequestType};
use otherix_schemas::user::{
    CallerView, CreateUser, CredentialView, GetCredential, Myself, RevokeUser, SetUserRole, UserAndRole, UserById,
    UserDraft, UserOrMyself, UserRole, UserView, WhoAmI,
};
use otherix_testkit::wait::wait_for;
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use serde_json::{Value, json};

use crate::daemon::{DEADLINE, OtherixdProcess, call, draft};

/// How fast a client must be cut off.
const WITHIN: Duration = Duration::from_secs(1);

async fn ask<R: RequestType>(connection: &Nats, body: &R::Body) -> R::Answer {
    call(connection, Request::of::<R>(), body, None).await.unwrap().data
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
    ask::<SetUserRole>(&admin, &UserAndRole { id: user.id, role: UserRole::Admin }).await;
    let took = cut_off(&ann, begin).await;
    assert!(took < WITHIN, "{took:?}");
    assert!(!connects(&url, &viewer).await, "the credential of the earlier role still works");
    let promoted = credential(&admin, &user, &key).await;
    let ann = once(&url, &promoted).await;
    call::<Value>(&ann, Request::of::<CreateNetwork>(), &draft("n", "b"), None).await.unwrap();

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
