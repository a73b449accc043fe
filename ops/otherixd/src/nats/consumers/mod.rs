//! Users' durable consumers on the clients' mirror. Only the control plane can make and remove them, because whoever
//! makes a consumer chooses where the server delivers to. Each user has a few fixed names ([`slots`]), which its
//! permissions on NATS are for. The consumers on the server are all there is: their metadata has what was asked for.
//!
//! Cancel-safety: the futures of [`UserConsumers`] may be dropped at any await and called again.

mod removal;
mod slots;
mod start;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info, pull};
use async_nats::jetstream::stream::Stream;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::TryStreamExt;
use otherix_commands::relay::{NoteError, Notes, durables};
use otherix_commands::service::Consumers;
use otherix_commands::store::{EventStore, StoreError};
use otherix_runtime::LogLimit;
use otherix_schemas::cloudevent::DecodeError;
use otherix_schemas::consumer::{ConsumerName, ConsumerSpec, ConsumerView};
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode};
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;
use otherix_schemas::user::{Caller, Callers};
use otherix_transport::JetStream;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::{Instant, sleep, timeout};

use self::slots::{Placement, UserConsumer, entitled, place};
use super::mirror::{ACCOUNT, is_not_found};

/// Time-out of a request to the server. Clients wait a little longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a request waits while the mirror or other consumers are changed.
const TURN_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a request waits until the mirror has the events before the one to begin with, and the interval of looking.
const MIRROR_TIMEOUT: Duration = Duration::from_millis(500);
const MIRROR_POLL: Duration = Duration::from_millis(10);

/// Requests of one consumer for messages that may wait at the same time, the most messages of one, and how long it may
/// wait: less than the server remembers where the answers go.
const REQUESTS_MAX: i64 = 64;
const BATCH_MAX: i64 = 1_000;
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Metadata of a consumer: what was asked for, as JSON, and the id of the user.
const SPEC: &str = "otherix.consumer";
const USER: &str = "otherix.user";

/// Held while the mirror, or consumers on it, are changed.
pub(crate) type MirrorTurn = Arc<Mutex<()>>;

/// Users' durable consumers.
pub(crate) struct UserConsumers<J> {
    events: Context,
    journal: Arc<J>,
    notes: Notes,
    callers: watch::Receiver<Callers>,
    turn: MirrorTurn,
}

#[derive(Debug, thiserror::Error)]
enum ConsumersError {
    #[error("NATS does not answer about the consumers of `{STREAM}`")]
    Nats(#[source] async_nats::Error),
    /// Also while it does not exist yet.
    #[error("the clients' mirror of the events is being made or changed")]
    Busy,
    #[error("the clients' mirror does not have the latest events yet")]
    Behind,
    /// What is known of restored consumers.
    #[error(transparent)]
    Notes(#[from] NoteError),
    #[error("cannot read the journal")]
    Journal(#[from] StoreError),
    #[error("cannot decode an event of the journal")]
    Event(#[from] DecodeError),
}

impl ConsumersError {
    fn nats(error: impl Into<async_nats::Error>) -> Self {
        Self::Nats(error.into())
    }
}

impl From<ConsumersError> for ErrorBody {
    fn from(error: ConsumersError) -> Self {
        static FAILED: LogLimit = LogLimit::new();
        let code = match &error {
            ConsumersError::Busy | ConsumersError::Behind => ErrorCode::Unavailable,
            ConsumersError::Nats(_) => ErrorCode::Unavailable,
            ConsumersError::Notes(_) | ConsumersError::Journal(_) | ConsumersError::Event(_) => ErrorCode::Internal,
        };
        if let Some(count) = FAILED.hit() {
            tracing::warn!(error = %Causes(&error), count, "requests about durable consumers failed");
        }
        Self::new(code, error.to_string())
    }
}

impl<J: EventStore> UserConsumers<J> {
    /// `events` is a connection to the account of the mirror, `turn` is shared with what maintains the mirror.
    pub(crate) fn new(
        events: &JetStream,
        journal: Arc<J>,
        notes: Notes,
        callers: watch::Receiver<Callers>,
        turn: MirrorTurn,
    ) -> Self {
        let mut events = events.context();
        events.set_timeout(REQUEST_TIMEOUT);
        Self { events, journal, notes, callers, turn }
    }

    /// Waits until nothing else changes the mirror or its consumers, all of which exist then.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>, ConsumersError> {
        let turn = timeout(TURN_TIMEOUT, self.turn.lock()).await.map_err(|_| ConsumersError::Busy)?;
        if durables::are_to_be_restored(&self.notes, ACCOUNT)? {
            return Err(ConsumersError::Busy);
        }
        Ok(turn)
    }

    /// The mirror, if it exists now.
    async fn mirror(&self) -> Result<Stream, ConsumersError> {
        let found = self.events.get_stream(STREAM).await;
        found.map_err(|error| if is_not_found(&error) { ConsumersError::Busy } else { ConsumersError::nats(error) })
    }

    /// All users' consumers.
    async fn all(&self) -> Result<Vec<UserConsumer>, ConsumersError> {
        let stream = self.mirror().await?;
        let found: Vec<Info> = stream.consumers().try_collect().await.map_err(ConsumersError::nats)?;
        Ok(found.into_iter().filter_map(UserConsumer::new).collect())
    }

    async fn of(&self, owner: &Caller) -> Result<Vec<UserConsumer>, ConsumersError> {
        let mut own = self.all().await?;
        own.retain(|consumer| consumer.key.as_str() == owner.key.as_str());
        Ok(own)
    }

    async fn create(&self, owner: &Caller, spec: ConsumerSpec, head: Position) -> Result<ConsumerView, ErrorBody> {
        let _turn = self.turn().await?;
        // The user may have changed since the request arrived. Consumers are removed after a change of the registry, in
        // another turn.
        if !entitled(&self.callers.borrow()).contains(&owner.key) {
            let text = format!("the credential with the key `{}` is not valid any more", owner.key);
            return Err(ErrorBody::new(ErrorCode::Unauthenticated, text));
        }
        let slot = match place(self.all().await?, &owner.key, &spec)? {
            Placement::Present(view) => return Ok(view),
            Placement::Free(slot) => slot,
        };
        let first = start::first(self.journal.as_ref(), spec.from, head).await?;
        self.wait_for_mirror(first.get().saturating_sub(1).min(head.get())).await?;
        let saved = serde_json::to_string(&spec);
        let saved = saved.map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))?;
        let config = pull::Config {
            durable_name: Some(slot.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first.get() },
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(spec.ack_wait_seconds),
            max_ack_pending: i64::try_from(spec.max_ack_pending).unwrap_or(1),
            filter_subjects: spec.subjects.clone(),
            inactive_threshold: Duration::from_secs(spec.inactive_seconds),
            max_waiting: REQUESTS_MAX,
            max_batch: BATCH_MAX,
            max_expires: WAIT_MAX,
            metadata: HashMap::from([(SPEC.to_owned(), saved), (USER.to_owned(), owner.id.to_string())]),
            ..pull::Config::default()
        };
        let created = self.events.create_consumer_strict_on_stream(config, STREAM).await;
        let created = created.map_err(ConsumersError::nats)?.cached_info().clone();
        let (user, id, consumer) = (&owner.name, &owner.id, spec.name.as_str());
        tracing::info!(user, %id, consumer, slot, from = %spec.from, "a durable consumer is created");
        let created = UserConsumer::new(created).and_then(UserConsumer::view);
        created.ok_or_else(|| ErrorBody::new(ErrorCode::Internal, "the server has made another consumer"))
    }

    async fn list(&self, owner: &Caller) -> Result<Vec<ConsumerView>, ErrorBody> {
        let _turn = self.turn().await?;
        let mut views: Vec<ConsumerView> = self.of(owner).await?.into_iter().filter_map(UserConsumer::view).collect();
        views.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(views)
    }

    async fn delete(&self, owner: &Caller, name: &ConsumerName) -> Result<ConsumerView, ErrorBody> {
        let _turn = self.turn().await?;
        let view = self.of(owner).await?.into_iter().filter_map(UserConsumer::view).find(|view| view.name == *name);
        let view = view.ok_or_else(|| {
            ErrorBody::new(ErrorCode::NotFound, format!("user `{}` has no consumer `{name}`", owner.name))
        })?;
        self.remove(&view.consumer).await?;
        let (user, id, slot) = (&owner.name, &owner.id, &view.consumer);
        tracing::info!(user, %id, consumer = name.as_str(), slot, "a durable consumer is deleted");
        Ok(view)
    }

    /// Removes a consumer from the server, for which this is the turn.
    async fn remove(&self, slot: &str) -> Result<(), ConsumersError> {
        // First, so that it is not restored over one that is made in its place.
        durables::forget(&self.notes, ACCOUNT, slot)?;
        self.events.delete_consumer_from_stream(slot, STREAM).await.map_err(ConsumersError::nats)?;
        Ok(())
    }

    /// Waits until the mirror has all events up to a sequence: a consumer that is to begin after its end might be moved
    /// back to it.
    async fn wait_for_mirror(&self, sequence: u64) -> Result<(), ConsumersError> {
        let end = Instant::now() + MIRROR_TIMEOUT;
        loop {
            let stream = self.mirror().await?;
            if stream.cached_info().state.last_sequence >= sequence {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(ConsumersError::Behind);
            }
            sleep(MIRROR_POLL).await;
        }
    }
}

impl<J: EventStore> Consumers for UserConsumers<J> {
    fn create<'a>(
        &'a self,
        owner: &'a Caller,
        spec: ConsumerSpec,
        head: Position,
    ) -> BoxFuture<'a, Result<ConsumerView, ErrorBody>> {
        self.create(owner, spec, head).boxed()
    }

    fn list<'a>(&'a self, owner: &'a Caller) -> BoxFuture<'a, Result<Vec<ConsumerView>, ErrorBody>> {
        self.list(owner).boxed()
    }

    fn delete<'a>(&'a self, owner: &'a Caller, name: ConsumerName) -> BoxFuture<'a, Result<ConsumerView, ErrorBody>> {
        async move { self.delete(owner, &name).await }.boxed()
    }
}
