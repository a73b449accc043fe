//! Revoked credentials: their connections end, and they are refused, also by a server that was started later.

use std::sync::Arc;

use async_nats::connection::State;
use otherix_commands::relay::Relayed;
use otherix_identity::Creds;
use otherix_schemas::permission::Role;
use otherix_schemas::position::Position;
use otherix_schemas::user::Callers;
use otherix_testkit::wait::wait_for;
use otherix_transport::{Credentials, JetStream, Nats};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::identity::UserToSign;
use super::super::scope::Scope;
use super::super::{NatsSupervisor, RevocationPusher, RevocationSink, Revocations, revocations};
use super::{DEADLINE, NatsFixture, settings};

/// How fast a connected client must be cut off.
const WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// A pusher with what the control plane tells it.
pub(super) struct Pushing {
    pub(super) pusher: RevocationPusher,
    pub(super) callers: watch::Sender<Callers>,
    pub(super) revoked: watch::Sender<Revocations>,
    pub(super) _relay: (watch::Sender<Relayed>, watch::Sender<Position>),
}

impl Pushing {
    pub(super) async fn on(fixture: &NatsFixture) -> Self {
        let access = fixture.supervisor.access();
        let claims = Nats::lasting(&access.claims.unwrap(), "test").await.unwrap().into();
        let (callers, revoked) = (watch::Sender::default(), watch::Sender::default());
        let relay = (watch::Sender::new(Relayed::default()), watch::Sender::new(Position::ZERO));
        let pusher = RevocationPusher {
            sink: RevocationSink::Embedded { identity: Arc::clone(&access.identity), claims },
            callers: callers.subscribe(),
            former_node: None,
            relayed: relay.0.subscribe(),
            head: relay.1.subscribe(),
            revoked: revoked.clone(),
        };
        Self { pusher, callers, revoked, _relay: relay }
    }
}

#[tokio::test]
async fn revoked_users_are_cut_off_and_refused() {
    let mut fixture = NatsFixture::start().await;
    let file = fixture.state().join("credentials/admin.creds");
    let creds = Creds::load(&file).unwrap();
    let credentials = Credentials::Key(Arc::new(creds.clone()));
    let (admin, node) = (fixture.connect_as("admin").await, fixture.connect_as("node").await);
    let Pushing { pusher, callers, revoked, _relay } = Pushing::on(&fixture).await;
    let endpoint = fixture.supervisor.endpoint(&credentials);
    let check = async {
        let begin = Instant::now();
        let second = i64::try_from(creds.claims().issued_at).unwrap();
        callers.send_replace(
            serde_json::from_value(json!({
                "users": {},
                "revoked": { creds.user().as_str(): { "valid_after": second, "expires_at": null } },
                "enrollments": { "tokens": {}, "nodes": {}, "revoked": {} }
            }))
            .unwrap(),
        );
        wait_for(DEADLINE, "the end of the connection", async || admin.client().connection_state() != State::Connected)
            .await;
        assert!(begin.elapsed() < WITHIN, "{:?}", begin.elapsed());
        JetStream::once(&endpoint, "test", DEADLINE).await.unwrap_err();
        assert_eq!(node.client().connection_state(), State::Connected);
        assert_eq!(*revoked.borrow(), revocations(&callers.borrow(), None, None), "a new server is started with them");
        assert_eq!(revoked.borrow().clients.keys.get(creds.public_key().as_str()), Some(&creds.claims().issued_at));
    };
    tokio::select! {
        () = pusher.run() => panic!("the pusher ended"),
        never = fixture.supervisor.run() => match never {},
        () = check => {}
    }

    // A server that starts later refuses them as well.
    let (state, wanted) = (fixture.state().to_owned(), revoked.borrow().clone());
    let _folder = fixture.stop().await;
    let mut settings = settings(&state);
    settings.revoked = watch::Sender::new(wanted).subscribe();
    let restarted = NatsSupervisor::start(settings).await.unwrap();
    let refused = JetStream::once(&restarted.endpoint(&credentials), "test", DEADLINE).await;
    assert!(refused.is_err());
    // Credentials that were issued later for the same key are others.
    let (key, issued_at) = (creds.public_key(), creds.claims().issued_at + 1);
    let user = UserToSign { key, name: "admin", scope: Scope::Role(Role::Admin), issued_at, expires_at: None };
    let renewed = Creds::new(restarted.access().identity.sign_user(user).unwrap(), creds.key().clone()).unwrap();
    let renewed = restarted.endpoint(&Credentials::Key(Arc::new(renewed)));
    JetStream::once(&renewed, "test", DEADLINE).await.unwrap();
    restarted.stop().await;
}
