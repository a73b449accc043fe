//! Credentials in files that change while a lasting connection uses them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use otherix_identity::PublicKey;
use otherix_runtime::files;
use otherix_schemas::network::ListNetworks;
use otherix_testkit::wait::wait_for;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::transport::Message;
use otherix_transport::{Credentials, CredentialsFile, Nats, NatsEndpoint};
use serde_json::json;

use crate::credentials::call;
use crate::operator::OperatorServer;

const DEADLINE: Duration = Duration::from_secs(20);

struct Fixture {
    operator: OperatorServer,
    folder: TempDir,
    /// Answers all requests.
    _service: tokio::task::JoinHandle<()>,
}

impl Fixture {
    async fn start() -> Self {
        let operator = OperatorServer::start();
        let service = operator.anything().await;
        let mut requests = service.subscribe("otherix.req.v1.*.network.list").await.unwrap();
        service.settled().await.unwrap();
        let answering = tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let body = json!({ "data": [request.subject.as_str()], "meta": { "position": 1 } }).to_string();
                service.publish(Message::new(request.reply.unwrap(), body)).await.unwrap();
            }
        });
        Self { operator, folder: tempdir().unwrap(), _service: answering }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, credentials: &Credentials) {
        let Credentials::Key(creds) = credentials else { panic!("it is a key") };
        files::replace(&self.path(name), creds.render().as_bytes()).unwrap();
    }

    /// Writes credentials of a new user to a file.
    fn user(&self, file: &str) -> PublicKey {
        let (credentials, key) = self.operator.viewer(None);
        self.write(file, &credentials);
        key
    }

    async fn connect(&self) -> Nats {
        let file = CredentialsFile::load(&self.path("node.creds"), Some(&self.path("next.creds"))).unwrap();
        let endpoint = NatsEndpoint { credentials: Arc::new(file), ..self.operator.endpoint(self.operator.anyone()) };
        Nats::lasting(&endpoint, "test").await.unwrap()
    }
}

/// Waits until a request is answered that this user has made.
async fn expect_request_by(nats: &Nats, key: &PublicKey) {
    let expected = json!([format!("otherix.req.v1.{}.network.list", key.as_str())]);
    wait_for(DEADLINE, "a request by the user", async || match call::<ListNetworks>(nats).await {
        Ok(answer) if answer == expected => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(nats.user().as_str(), key.as_str());
}

#[tokio::test]
async fn a_successor_is_used_at_once_and_the_earlier_key_is_needed_no_more() {
    let fixture = Fixture::start().await;
    let first = fixture.user("node.creds");
    let nats = fixture.connect().await;
    expect_request_by(&nats, &first).await;
    let second = fixture.user("next.creds");
    expect_request_by(&nats, &second).await;
    assert!(!fixture.path("next.creds").exists());
    let kept = Credentials::load(&fixture.path("node.creds")).unwrap();
    assert_eq!(kept.user().as_str(), second.as_str());
    fixture.operator.revoke(&first).await;
    expect_request_by(&nats, &second).await;
    assert_eq!(*nats.connects().borrow(), 2, "the revocation of the earlier key interrupts nothing");
}

#[tokio::test]
async fn a_successor_that_is_refused_leaves_the_earlier_key_in_use() {
    let fixture = Fixture::start().await;
    let first = fixture.user("node.creds");
    let nats = fixture.connect().await;
    expect_request_by(&nats, &first).await;
    fixture.write("next.creds", &fixture.operator.foreigner());
    let connects = nats.connects();
    wait_for(DEADLINE, "the attempt and the return", async || *connects.borrow() == 2).await;
    expect_request_by(&nats, &first).await;
    assert!(fixture.path("next.creds").exists());
    let second = fixture.user("next.creds");
    expect_request_by(&nats, &second).await;
}

#[tokio::test]
async fn after_a_kill_between_two_steps_one_of_the_keys_works() {
    let fixture = Fixture::start().await;
    // Both are there, and the control plane has ended the first one already.
    let (first, second) = (fixture.user("node.creds"), fixture.user("next.creds"));
    fixture.operator.revoke(&first).await;
    expect_request_by(&fixture.connect().await, &second).await;
    // Both are there, and the second is no longer valid.
    let third = fixture.user("next.creds");
    fixture.operator.revoke(&third).await;
    expect_request_by(&fixture.connect().await, &second).await;
}

#[tokio::test]
async fn a_user_that_is_revoked_is_served_again_once_its_file_was_replaced() {
    let fixture = Fixture::start().await;
    let first = fixture.user("node.creds");
    let nats = fixture.connect().await;
    expect_request_by(&nats, &first).await;
    fixture.operator.revoke(&first).await;
    wait_for(DEADLINE, "the end of the connection", async || !nats.is_connected()).await;
    call::<ListNetworks>(&nats).await.unwrap_err();
    let second = fixture.user("node.creds");
    expect_request_by(&nats, &second).await;
    fs::remove_file(fixture.path("node.creds")).unwrap();
    expect_request_by(&nats, &second).await;
}
