//! Credentials by key, on a server in operator mode.

use std::time::{Duration, Instant};

use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::network::{DeleteNetwork, ListNetworks};
use otherix_schemas::request::{Request, RequestType};
use otherix_testkit::nats::NatsServer;
use otherix_transport::nats::{ConnectFailure, CredentialsRefusal};
use otherix_transport::request::{CallError, CallOptions};
use otherix_transport::transport::Message;
use otherix_transport::{Connection, Credentials, JetStream, Nats, NatsEndpoint};
use serde_json::{Value, json};

use crate::operator::{OperatorServer, now};

const DEADLINE: Duration = Duration::from_secs(10);

async fn refusal(endpoint: &NatsEndpoint) -> CredentialsRefusal {
    match Nats::once(endpoint, "test", DEADLINE).await.expect_err("no connection").source {
        ConnectFailure::Credentials(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn call<R: RequestType>(connection: &Connection) -> Result<Value, CallError> {
    let options = CallOptions { timeout: DEADLINE, idempotency_key: None };
    let answer = connection.call_untyped::<_, Value>(Request::of::<R>(), &json!({}), options).await?;
    Ok(answer.data)
}

fn refused(error: CallError) -> ErrorBody {
    match error {
        CallError::Refused(body) => body,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_key_proves_who_connects() {
    let operator = OperatorServer::start();
    let (credentials, key) = operator.viewer(Some(now() + 3600));
    let endpoint = operator.endpoint(credentials);
    let nats = Nats::once(&endpoint, "test", DEADLINE).await.unwrap();
    assert_eq!(nats.user().as_str(), key.as_str());
    let service = operator.anything().await;
    let mut requests = service.subscribe("otherix.req.v1.*.network.list").await.unwrap();
    service.settled().await.unwrap();
    let answering = async {
        let request = requests.next().await.unwrap();
        assert_eq!(request.subject, format!("otherix.req.v1.{}.network.list", key.as_str()));
        let reply = request.reply.unwrap();
        assert!(reply.starts_with(&format!("_INBOX_{}.", key.as_str())), "{reply}");
        let body = json!({ "data": [1], "meta": { "position": 1 } }).to_string();
        service.publish(Message::new(reply, body)).await.unwrap();
    };
    let (answer, ()) = tokio::join!(call::<ListNetworks>(&nats), answering);
    assert_eq!(answer.unwrap(), json!([1]));
    JetStream::once(&endpoint, "test", DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_request_without_permission_fails_at_once() {
    let operator = OperatorServer::start();
    let nats = Nats::once(&operator.endpoint(operator.viewer(None).0), "test", DEADLINE).await.unwrap();
    let begin = Instant::now();
    let body = refused(call::<DeleteNetwork>(&nats).await.unwrap_err());
    assert!(begin.elapsed() < DEADLINE / 5, "{:?}", begin.elapsed());
    assert_eq!(body.error.code, ErrorCode::PermissionDenied);
    assert_eq!(body.error.message, "role `viewer` lacks the permission `network:manage`");
    assert_eq!(json!(body.error.details), json!({ "permission": "network:manage", "role": "viewer" }));
    // The connection is as good as before.
    assert!(matches!(call::<ListNetworks>(&nats).await, Err(CallError::NoService { .. })));
}

#[tokio::test]
async fn refusals_say_which() {
    let operator = OperatorServer::start();
    let expired = refusal(&operator.endpoint(operator.viewer(Some(now() - 5)).0)).await;
    assert!(matches!(expired, CredentialsRefusal::Expired(_)), "{expired:?}");
    assert!(expired.to_string().starts_with("the credentials expired at 2"), "{expired}");
    let (viewer, key) = operator.viewer(None);
    let endpoint = operator.endpoint(viewer.clone());
    Nats::once(&endpoint, "test", DEADLINE).await.unwrap();
    operator.revoke(&key).await;
    assert_eq!(refusal(&endpoint).await, CredentialsRefusal::Unknown);
    assert_eq!(refusal(&operator.endpoint(operator.foreigner())).await, CredentialsRefusal::Unknown);
    let password = Credentials::password("ann".parse().unwrap(), "x");
    assert_eq!(refusal(&operator.endpoint(password)).await, CredentialsRefusal::Password);
    let plain = NatsServer::start();
    assert_eq!(refusal(&NatsEndpoint::new(plain.url(), viewer)).await, CredentialsRefusal::NoNonce);
}

#[tokio::test]
async fn a_user_that_is_revoked_learns_it_at_once_and_so_do_its_requests() {
    let operator = OperatorServer::start();
    let (viewer, key) = operator.viewer(None);
    let service = operator.anything().await;
    // Takes requests, and answers none.
    let mut requests = service.subscribe("otherix.req.v1.*.network.list").await.unwrap();
    service.settled().await.unwrap();
    for lasting in [false, true] {
        let (viewer, key) = if lasting { operator.viewer(None) } else { (viewer.clone(), key.clone()) };
        let endpoint = operator.endpoint(viewer);
        let nats = if lasting {
            Nats::lasting(&endpoint, "test").await.unwrap()
        } else {
            Nats::once(&endpoint, "test", DEADLINE).await.unwrap()
        };
        let revoking = async {
            requests.next().await.unwrap();
            operator.revoke(&key).await;
            Instant::now()
        };
        let (answer, revoked) = tokio::join!(call::<ListNetworks>(&nats), revoking);
        assert!(revoked.elapsed() < Duration::from_secs(1), "{:?}", revoked.elapsed());
        let body = refused(answer.unwrap_err());
        assert_eq!(body.error.code, ErrorCode::Unauthenticated);
        assert_eq!(body.error.message, "the credentials were revoked");
        if lasting {
            // Neither queued nor left to a time-out.
            let begin = Instant::now();
            let body = refused(call::<ListNetworks>(&nats).await.unwrap_err());
            assert_eq!(body.error.code, ErrorCode::Unauthenticated);
            assert!(begin.elapsed() < DEADLINE / 5, "{:?}", begin.elapsed());
        }
    }
}

#[tokio::test]
async fn credentials_that_expire_end_the_connection_with_the_reason() {
    let operator = OperatorServer::start();
    let (viewer, _) = operator.viewer(Some(now() + 2));
    let service = operator.anything().await;
    let _unanswered = service.subscribe("otherix.req.v1.*.network.list").await.unwrap();
    service.settled().await.unwrap();
    let nats = Nats::once(&operator.endpoint(viewer), "test", DEADLINE).await.unwrap();
    let body = refused(call::<ListNetworks>(&nats).await.unwrap_err());
    assert_eq!(body.error.code, ErrorCode::Unauthenticated);
    assert!(body.error.message.starts_with("the credentials expired at 2"), "{}", body.error.message);
}
