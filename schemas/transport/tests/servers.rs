//! A connection with several servers: one that does not answer does not keep it from the next.

use std::net::TcpListener;
use std::time::Duration;

use otherix_testkit::nats::NatsServer;
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use tokio::time::timeout;

#[tokio::test]
async fn a_server_that_does_not_answer_does_not_keep_from_the_next() {
    let mut server = NatsServer::start();
    // It accepts connections, and never sends its greeting.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{},nats://127.0.0.1:{}", silent.local_addr().unwrap(), server.port());
    let credentials = Credentials::password("node-1".parse().unwrap(), "x");
    let nats = Nats::lasting(&NatsEndpoint::new(url, credentials), "test").await.unwrap();
    let mut peer = nats.peer();
    let connected = timeout(Duration::from_secs(20), peer.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert_eq!(connected.unwrap().port(), server.port());
    drop(connected);
    server.kill9();
    timeout(Duration::from_secs(20), peer.wait_for(Option::is_none)).await.unwrap().unwrap();
}
