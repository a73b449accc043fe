//! Keeps the read models up to date: follows every event, and applies it in the transaction that
//! moves the checkpoint. An event at or below the checkpoint changes nothing. An event that cannot
//! be applied stops the projection, visibly; it is never skipped.
//!
//! Cancel-safety: [`Projection::run`] may be dropped at any await; a transaction that has begun is
//! rolled back.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::cluster::{ClusterEvent, ClusterRestored};
use otherix_schemas::error::Causes;
use otherix_schemas::event::Event;
use otherix_schemas::id::ClusterId;
use otherix_schemas::node::{NodeEvent, NodeRemoved};
use otherix_schemas::position::Position;
use otherix_transport::Connection;
use otherix_transport::feed::{Feed, FeedError, Item, Scope};
use sqlx::Row;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::watch;

use crate::apply::{ApplyError, apply, integer};
use crate::mesh::Peers;

/// The read models' migrations.
static MIGRATIONS: Migrator = sqlx::migrate!();

/// Events in one transaction: as many as have arrived, up to this.
const BATCH: usize = 500;

/// How long more events are waited for while nobody asks. What follows a decision (the nodes' outcomes) goes into the same
/// transaction, and the work on the read models does not hold up the nodes' own.
const GATHER: Duration = Duration::from_millis(10);

/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The read models, and how far they are.
#[derive(Clone, Debug)]
pub struct Models {
    readers: SqlitePool,
    applied: watch::Receiver<Position>,
    wanted: watch::Sender<Position>,
    trouble: watch::Receiver<Option<String>>,
    peers: Peers,
}

/// Keeps the read models up to date.
pub struct Projection {
    writer: SqlitePool,
    applied: watch::Sender<Position>,
    /// The furthest position that somebody has waited for.
    wanted: watch::Receiver<Position>,
    trouble: watch::Sender<Option<String>>,
    peers: Peers,
}

/// Why the read models cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be opened.
    #[error("cannot open the read models")]
    Database(#[from] sqlx::Error),
    /// The schema cannot be brought up to date.
    #[error("cannot bring the read models' schema up to date")]
    Migrate(#[from] MigrateError),
    /// They are another cluster's.
    #[error("the read models belong to cluster `{0}`; they may be deleted, and are then made anew")]
    OtherCluster(String),
    /// They account for events that there are not.
    #[error(
        "the read models are at position {found}, ahead of the journal at {head}; they may be deleted, and are then made anew"
    )]
    Ahead {
        /// Where they are.
        found: Position,
        /// Where the journal is.
        head: Position,
    },
}

/// Why the projection cannot go on for now.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The events cannot be followed.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// An event cannot be applied.
    #[error("cannot apply the event at position {position}")]
    Apply {
        /// Which.
        position: Position,
        /// Why not.
        #[source]
        source: ApplyError,
    },
    /// The read models have taken in what a new epoch has given up.
    #[error(
        "the read models hold events behind position {kept} that a new epoch has given up: `otherixd rebuild` makes them anew"
    )]
    GivenUp {
        /// The last event that counts.
        kept: Position,
    },
    /// The database.
    #[error("the read models' database failed")]
    Database(#[from] sqlx::Error),
}

/// Opens the read models at `path`, and makes them if there are none. `head` is the journal's.
///
/// # Errors
/// When the database does not open, or holds something else.
pub async fn open(path: &Path, cluster: ClusterId, head: Position) -> Result<(Projection, Models), OpenError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What a power cut takes away is made again from the events.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5));
    // A file is not lost as a connection to a server is: asking it each time is in vain.
    let pool = || SqlitePoolOptions::new().test_before_acquire(false);
    let writer = pool().max_connections(1).connect_with(options.clone()).await?;
    MIGRATIONS.run(&writer).await?;
    sqlx::query("INSERT OR IGNORE INTO checkpoint (id, position, cluster) VALUES (1, 0, $1)")
        .bind(cluster.to_string())
        .execute(&writer)
        .await?;
    let row = sqlx::query("SELECT position, cluster FROM checkpoint").fetch_one(&writer).await?;
    let owner: String = row.try_get("cluster")?;
    if owner != cluster.to_string() {
        return Err(OpenError::OtherCluster(owner));
    }
    let found = Position::new(row.try_get::<i64, _>("position")?.cast_unsigned());
    if found > head {
        return Err(OpenError::Ahead { found, head });
    }
    let readers = pool().max_connections(4).connect_with(options.read_only(true)).await?;
    let (applied, is_applied) = watch::channel(found);
    let (wanted, is_wanted) = watch::channel(Position::ZERO);
    let (trouble, is_trouble) = watch::channel(None);
    let peers = Peers::default();
    let models = Models { readers, applied: is_applied, wanted, trouble: is_trouble, peers: peers.clone() };
    Ok((Projection { writer, applied, wanted: is_wanted, trouble, peers }, models))
}

impl Models {
    /// Closes the database.
    pub(crate) async fn close(self) {
        self.readers.close().await;
    }

    /// For reading.
    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.readers
    }

    /// What nodes say of their peers is heard by this, and told with what the read models hold.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The last event that the read models account for.
    pub fn applied(&self) -> Position {
        *self.applied.borrow()
    }

    /// What keeps the projection from going on.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Waits until the read models account for everything up to `position`. Says whether they came to.
    pub async fn reach(&self, position: Position, timeout: Duration) -> bool {
        if self.applied() >= position {
            return true;
        }
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, position.max(*wanted)) < position);
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= position);
        tokio::time::timeout(timeout, reached).await.is_ok_and(|reached| reached.is_ok())
    }
}

impl Projection {
    /// Closes the database.
    pub(crate) async fn close(self) {
        self.writer.close().await;
    }

    /// Follows the events until the connection is closed. `head` tells how far there are events.
    pub async fn run(self, connection: Connection, head: watch::Receiver<Position>) {
        loop {
            let Err(trouble) = self.follow(connection.clone(), head.clone()).await;
            if let Trouble::Feed(FeedError::Closed) = trouble {
                return;
            }
            let text = Causes(&trouble).to_string();
            tracing::error!(trouble = text, position = %*self.applied.borrow(), "the projection stands still");
            self.trouble.send_replace(Some(text));
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow(
        &self,
        connection: Connection,
        head: watch::Receiver<Position>,
    ) -> Result<std::convert::Infallible, Trouble> {
        let applied = *self.applied.borrow();
        let mut feed = Feed::new(connection, Scope::Everything, applied, head).await?;
        loop {
            let first = feed.next().await?;
            self.take_in(&self.gather(&mut feed, first).await).await?;
        }
    }

    /// The events that come within a while: as soon as somebody waits, those that have come.
    async fn gather(&self, feed: &mut Feed, first: Item) -> Vec<EventEnvelope> {
        let mut batch = Vec::new();
        let mut next = Some(first);
        let mut wanted = self.wanted.clone();
        let applied = *self.applied.borrow();
        let mut waited_for = pin!(wanted.wait_for(|wanted| *wanted > applied));
        let mut late = pin!(tokio::time::sleep(GATHER));
        while let Some(item) = next {
            if let Item::Event { envelope, .. } = item {
                batch.push(*envelope);
            }
            if batch.len() >= BATCH {
                break;
            }
            next = tokio::select! {
                biased;
                // What follows the last event that could be read is told at the next turn.
                item = feed.next() => item.ok(),
                _ = &mut waited_for => None,
                () = &mut late => None,
            };
        }
        batch
    }

    /// Applies events and moves the checkpoint, all or nothing.
    pub(crate) async fn take_in(&self, batch: &[EventEnvelope]) -> Result<(), Trouble> {
        let Some(last) = batch.last() else { return Ok(()) };
        let applied = *self.applied.borrow();
        let mut before = applied;
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for envelope in batch.iter().filter(|envelope| envelope.header.position > applied) {
            let position = envelope.header.position;
            if let Event::Cluster(ClusterEvent::Restored(ClusterRestored { kept, .. })) = &envelope.event
                && before > *kept
            {
                return Err(Trouble::GivenUp { kept: *kept });
            }
            before = position;
            apply(&mut transaction, envelope).await.map_err(|source| Trouble::Apply { position, source })?;
        }
        sqlx::query("UPDATE checkpoint SET position = $1")
            .bind(integer(last.header.position))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        for envelope in batch {
            if let Event::Node(NodeEvent::Removed(NodeRemoved { node_id, name: _ })) = &envelope.event {
                self.peers.forget(*node_id);
            }
        }
        self.trouble.send_replace(None);
        self.applied.send_replace(last.header.position);
        Ok(())
    }
}
