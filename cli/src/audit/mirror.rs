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
