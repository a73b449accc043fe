//! Compares the clients' mirror of the stream with exported events: the same bytes at the sequence that is the
//! position.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesOrdered, StreamExt};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::position::Position;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::file;
use super::folder::Lines;
use super::sequence::Fault;
use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;

/// Messages that are asked for at the same time.
const IN_FLIGHT: usize = 64;

/// How far in time the mirror may be behind the journal, and the pause before it is asked again.
const BEHIND_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    sequence: &'a str,
}

/// Compares each event.
pub(super) async fn compare(client: &ControlPlaneClient, mut events: Lines) -> Result<(), Failure> {
    let mut pending = FuturesOrdered::new();
    loop {
        let body = events.next().map_err(|error| file(&error))?.map(Bytes::copy_from_slice);
        let is_end = body.is_none();
        if let Some(body) = body {
            pending.push_back(compare_one(client, body));
        }
        while pending.len() >= IN_FLIGHT || (is_end && !pending.is_empty()) {
            pending.next().await.transpose()?;
        }
        if is_end {
            return Ok(());
        }
    }
}

async fn compare_one(client: &ControlPlaneClient, body: Bytes) -> Result<(), Failure> {
    let attributes: Attributes<'_> = serde_json::from_slice(&body).map_err(|error| malformed(&error.to_string()))?;
    let position = Position::from_sequence(attributes.sequence).map_err(|error| malformed(&error.to_string()))?;
    let begin = Instant::now();
    loop {
        let found = client.stored_message(position).await?;
        match found {
            Some(found) if found == body => return Ok(()),
            Some(_) => {
                return Err(Fault::at(position, "the stream has another event than the journal").into());
            }
            None if begin.elapsed() < BEHIND_MAX => sleep(PAUSE).await,
            None => return Err(Fault::at(position, "the stream does not have the event").into()),
        }
    }
}

fn malformed(text: &str) -> Failure {
    Failure::new(Exit::Unexpected, ErrorCode::Internal, format!("an exported event is malformed: {text}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use otherix_runtime::SystemRuntime;
    use otherix_transport::memory::{Faults, MemoryNetwork};
    use otherix_transport::transport::{Headers, Message};

    use super::*;

    type Stored = BTreeMap<u64, Bytes>;

    fn event(position: u64, text: &str) -> Bytes {
        format!(r#"{{"sequence":"{position:020}","data":"{text}"}}"#).into()
    }

    /// What the comparison of three events with a stream says that answers direct gets with these messages, and, once
    /// as many have been asked for, with the later ones.
    async fn compared(stored: Stored, later: Stored) -> Result<(), Failure> {
        let network = MemoryNetwork::new(SystemRuntime::shared(), Faults::NONE);
        let server = network.control("server".parse().unwrap());
        let mut requests = server.subscribe("$JS.events.API.DIRECT.GET.OTHERIX_EVENTS").await.unwrap();
        let answers = tokio::spawn(async move {
            let mut asked = 0;
            while let Some(request) = requests.next().await {
                asked += 1;
                let body: serde_json::Value = serde_json::from_slice(&request.payload).unwrap();
                let sequence = body["seq"].as_u64().unwrap();
                let stored = if asked > 3 { &later } else { &stored };
                let mut headers = Headers::new();
                let payload = match stored.get(&sequence) {
                    Some(payload) => {
                        headers.insert("Nats-Sequence", sequence.to_string()).unwrap();
                        payload.clone()
                    }
                    None => Bytes::new(),
                };
                server.publish(Message::new(request.reply.unwrap(), payload).with_headers(headers)).await.unwrap();
            }
        });
        let folder = otherix_testkit::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let lines: Vec<u8> = (1..=3).flat_map(|number| [event(number, "x"), Bytes::from("\n")].concat()).collect();
        std::fs::write(&path, lines).unwrap();
        let client = ControlPlaneClient::offline(network.client("ann".parse().unwrap()).connection());
        let result = compare(&client, Lines::open(&path).unwrap()).await;
        answers.abort();
        result
    }

    fn stored(changes: &[(u64, Option<Bytes>)]) -> Stored {
        let mut stored: Stored = (1..=3).map(|number| (number, event(number, "x"))).collect();
        for (number, change) in changes {
            match change {
                Some(change) => stored.insert(*number, change.clone()),
                None => stored.remove(number),
            };
        }
        stored
    }

    #[tokio::test]
    async fn every_message_of_the_mirror_is_the_event() {
        compared(stored(&[]), stored(&[])).await.unwrap();
        // It may be behind, and may have what came later.
        compared(stored(&[(3, None)]), stored(&[(4, Some(event(4, "x")))])).await.unwrap();
        for (other, expected) in [
            (Some(event(2, "y")), "position 2: the stream has another event than the journal"),
            (Some(event(3, "x")), "position 2: the stream has another event"),
            (Some([event(2, "x").as_ref(), b" "].concat().into()), "position 2: the stream has another event"),
            (None, "position 2: the stream does not have the event"),
        ] {
            let failure = compared(stored(&[(2, other.clone())]), stored(&[(2, other)])).await.unwrap_err();
            assert!(failure.body.error.message.contains(expected), "{}", failure.body.error.message);
            assert_eq!(failure.exit, Exit::Unexpected);
        }
    }
}
