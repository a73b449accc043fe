//! The client, against a server that a guest has taken over.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};

use super::*;

const GREETING: &str = "{\"QMP\": {}}\n";
const TIMEOUT: Duration = Duration::from_millis(500);

/// Connects to a server that sends `first`, and `again` until nobody listens or forever.
async fn against(first: &str, again: Option<&str>) -> Result<QmpClient, QmpError> {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("qmp");
    let listener = UnixListener::bind(&socket).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        while let Some(again) = again {
            if stream.write_all(again.as_bytes()).await.is_err() {
                break;
            }
        }
        std::future::pending::<UnixStream>().await
    };
    let pid = std::process::id().cast_signed();
    tokio::select! {
        result = QmpClient::connect(&socket, pid, TIMEOUT) => result,
        _ = serve => panic!("the server ended"),
    }
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    assert!(matches!(against("", None).await, Err(QmpError::TimedOut(_))));
    assert!(matches!(against(GREETING, None).await, Err(QmpError::TimedOut(_))));
}

#[tokio::test]
async fn what_never_ends_ends_at_the_deadline() {
    let events = "{\"event\": \"VNC_CONNECTED\"}\n".repeat(100);
    assert!(matches!(against(GREETING, Some(&events)).await, Err(QmpError::TimedOut(_))));
    let answers = "{\"return\": {}, \"id\": 99}\n".repeat(100);
    assert!(matches!(against(GREETING, Some(&answers)).await, Err(QmpError::TimedOut(_))));
}

#[tokio::test]
async fn nothing_grows_without_bound() {
    assert!(matches!(against(GREETING, Some(&"x".repeat(4096))).await, Err(QmpError::TooLong)));
    assert!(matches!(against(GREETING, Some("{\"event\": \"RESET\"}\n")).await, Err(QmpError::TooMany)));
}

#[tokio::test]
async fn garbage_is_an_error() {
    for line in ["\n", "{}\n", "\u{0}\u{1}\n", "[1]\n", "{\"QMP\"\n", "null\n"] {
        assert!(matches!(against(line, None).await, Err(QmpError::Malformed(_))), "{line:?}");
    }
}

#[tokio::test]
async fn only_the_expected_process_is_talked_to() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("qmp");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert!(matches!(QmpClient::connect(&socket, 1, TIMEOUT).await, Err(QmpError::Foreign { expected: 1, .. })));
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_tried_until_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("qmp");
    assert!(matches!(QmpClient::connect(&socket, 1, TIMEOUT).await, Err(QmpError::Connect(_))));
    drop(UnixListener::bind(&socket).unwrap());
    assert!(matches!(QmpClient::connect(&socket, 1, TIMEOUT).await, Err(QmpError::Connect(_))));
}

/// An answer that comes after its caller has given up is not taken for that to the next command.
#[tokio::test]
async fn late_answers_are_skipped() {
    let (own, mut server) = UnixStream::pair().unwrap();
    let mut client = QmpClient {
        stream: own,
        lines: LineBuffer::default(),
        events: VecDeque::new(),
        last_id: 0,
        timeout: Duration::from_millis(50),
    };
    assert!(matches!(client.status().await, Err(QmpError::TimedOut(_))));
    server.write_all(b"{\"return\": {\"status\": \"running\"}, \"id\": 1}\n").await.unwrap();
    server.write_all(b"{\"return\": {\"status\": \"paused\"}, \"id\": 2}\n").await.unwrap();
    assert_eq!(client.status().await.unwrap(), RunState::Paused);
}
