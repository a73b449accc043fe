//! Three servers that form a cluster over TLS: a client of one is answered by a service on another, and moves to the
//! next server when its own ends.

use std::time::Duration;

use bytes::Bytes;
use otherix_testkit::tempdir;
use otherix_testkit::wait::wait_for;
use otherix_transport::transport::{Message, RequestError};
use otherix_transport::{Nats, NatsEndpoint, TrustedCa};

use crate::operator::OperatorServer;
use crate::pki::TestCa;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_client_is_served_by_whichever_server_is_left() {
    let (ca, folder) = (TestCa::new(), tempdir().unwrap());
    let ca_file = ca.write(folder.path(), "ca.pem");
    let trusted = TrustedCa::load(&ca_file).unwrap();
    let certificate = ca.issue(folder.path(), "127.0.0.1", -1..1);
    let tls = format!("cert_file: \"{0}\", key_file: \"{0}\"", certificate.display());
    // Servers prove to each other that the CA knows them.
    let mutual = format!("{tls}, ca_file: \"{}\", verify: true", ca_file.display());
    let settings = |name: &str, routes: &str| {
        format!(
            "server_name: {name}\ntls {{ {tls} }}\n\
             cluster {{ name: c, listen: \"127.0.0.1:-1\", routes: [{routes}], tls {{ {mutual} }} }}\n"
        )
    };
    let mut first = OperatorServer::start_with(&settings("one", ""));
    let routes = format!("\"nats://{}\"", first.server.route());
    let others = ["two", "three"].map(|name| first.another(&settings(name, &routes)));
    let urls = [first.server.url(), others[0].url(), others[1].url()];
    let endpoint = |url: &str| NatsEndpoint::new(url, first.anyone()).with_ca(Some(trusted.clone()));
    let service = Nats::once(&endpoint(&urls[2]), "service", DEADLINE).await.unwrap();
    let mut requests = service.subscribe("echo").await.unwrap();
    service.settled().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            service.publish(Message::new(request.reply.unwrap(), request.payload)).await.unwrap();
        }
    });
    let client = Nats::lasting(&endpoint(&urls.join(",")), "client").await.unwrap();
    // The servers learn of subscriptions of each other a moment later.
    let answered = async || {
        wait_for(DEADLINE, "an answer", async || match client.request(Message::new("echo", "hi"), DEADLINE).await {
            Ok(answer) => Ok(answer.payload),
            Err(error @ (RequestError::NoResponders | RequestError::TimedOut)) => Err(error),
            Err(other) => panic!("{other:?}"),
        })
        .await
    };
    assert_eq!(answered().await, Bytes::from("hi"));
    let mut peer = client.peer();
    assert_eq!(peer.borrow().unwrap().port(), first.server.port());
    first.server.kill9();
    let moved = peer.wait_for(|peer| peer.is_some_and(|peer| peer.port() != first.server.port()));
    tokio::time::timeout(DEADLINE, moved).await.unwrap().unwrap();
    assert_eq!(answered().await, Bytes::from("hi"));
}
