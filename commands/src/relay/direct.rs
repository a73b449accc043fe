//! Reads the stream as people may: without a consumer, by batches of direct gets.

use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures::StreamExt;
use otherix_schemas::subject::{EVENTS_DOMAIN, STREAM};
use serde_json::json;
use tokio::time::Instant;

use super::survey::SurveyError;

/// Messages of a batch.
const BATCH: u32 = 500;

/// The header with a message's sequence.
const SEQUENCE: &str = "Nats-Sequence";
/// The header with a message's subject.
const SUBJECT: &str = "Nats-Subject";

/// The status that ends a batch, and the one that says that there is no message any more.
const END_OF_BATCH: u16 = 204;
const NO_MESSAGE: u16 = 404;
/// The status of a request that nobody has received: a mirror answers as soon as it follows its source.
const NO_RESPONDERS: u16 = 503;

/// Pause until it is asked again.
const RETRY: Duration = Duration::from_millis(50);

/// Reads messages in order.
pub(super) struct DirectReader {
    client: Client,
    inbox: String,
    answers: Subscriber,
    next: u64,
    last: u64,
    /// The batch that was requested has not ended.
    is_in_batch: bool,
    /// A message has arrived since the batch was requested.
    has_progressed: bool,
    silence: Duration,
    /// When the last message arrived.
    heard: Instant,
}

impl DirectReader {
    /// Reads from `first` up to `last`. `silence` is the time-out of each message.
    pub(super) async fn open(client: &Client, first: u64, last: u64, silence: Duration) -> Result<Self, SurveyError> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(inbox.clone()).await.map_err(|error| SurveyError::Stream(error.into()))?;
        let (client, next) = (client.clone(), first.max(1));
        Ok(Self {
            client,
            inbox,
            answers,
            next,
            last,
            is_in_batch: false,
            has_progressed: true,
            silence,
            heard: Instant::now(),
        })
    }

    /// Returns the next message with its sequence and its own subject; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Message)>, SurveyError> {
        loop {
            if !self.is_in_batch {
                if self.next > self.last || !self.has_progressed {
                    return Ok(None);
                }
                self.request().await?;
            }
            let arrived = tokio::time::timeout(self.silence, self.answers.next()).await;
            let message = arrived.map_err(|_elapsed| SurveyError::Silent)?.ok_or(SurveyError::Silent)?;
            match message.status.map(|status| status.as_u16()) {
                None => {
                    let header = |name| message.headers.as_ref()?.get(name).map(|value| value.as_str().to_owned());
                    let sequence = header(SEQUENCE).and_then(|text| text.parse().ok());
                    let Some((sequence, subject)) = sequence.zip(header(SUBJECT)) else {
                        return Err(SurveyError::Stream(
                            "the server's answer lacks `Nats-Sequence` or `Nats-Subject`".into(),
                        ));
                    };
                    self.next = sequence + 1;
                    (self.has_progressed, self.heard) = (true, Instant::now());
                    return Ok(Some((sequence, Message { subject: subject.into(), ..message })));
                }
                Some(END_OF_BATCH) => self.is_in_batch = false,
                Some(NO_MESSAGE) => return Ok(None),
                Some(NO_RESPONDERS) if self.heard.elapsed() < self.silence => {
                    tokio::time::sleep(RETRY).await;
                    (self.is_in_batch, self.has_progressed) = (false, true);
                }
                Some(status) => {
                    return Err(SurveyError::Stream(format!("the server answers with status {status}").into()));
                }
            }
        }
    }

    async fn request(&mut self) -> Result<(), SurveyError> {
        let subject = format!("$JS.{EVENTS_DOMAIN}.API.DIRECT.GET.{STREAM}");
        let batch = u64::from(BATCH).min((self.last + 1).saturating_sub(self.next));
        let query = json!({ "seq": self.next, "batch": batch }).to_string();
        let sent = self.client.publish_with_reply(subject, self.inbox.clone(), query.into()).await;
        sent.map_err(|error| SurveyError::Stream(error.into()))?;
        (self.is_in_batch, self.has_progressed) = (true, false);
        Ok(())
    }
}
