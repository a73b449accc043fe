//! Has NATS started again when it takes events but does not store them: after a disk was full, a server does not store again
//! by itself, however much room there is later.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use otherix_commands::relay::Relayed;
use otherix_transport::Connection;
use tokio::sync::{Notify, watch};

use crate::nats::has_room;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Publishes in a row without an answer (each takes seconds) that are no accident.
const UNANSWERED: u64 = 2;

/// How long a server that was started again is left in peace.
const PATIENCE: Duration = Duration::from_secs(5);

/// What there is to look at.
pub(crate) struct Store {
    /// The state folder.
    pub(crate) state: PathBuf,
    /// A connection to the server.
    pub(crate) connection: Connection,
    /// How the relay fares.
    pub(crate) relayed: watch::Receiver<Relayed>,
    /// Whether the clients' mirror does not get on.
    pub(crate) mirror_stuck: watch::Receiver<bool>,
    /// Has the server started again.
    pub(crate) restart: Arc<Notify>,
}

impl Store {
    /// Watches until the future is dropped.
    pub(crate) async fn watch(self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(LOOK).await;
            let stuck = self.relayed.borrow().unanswered >= UNANSWERED || *self.mirror_stuck.borrow();
            if !stuck || !self.connection.is_connected() {
                continue;
            }
            let state = self.state.clone();
            if tokio::task::spawn_blocking(move || has_room(&state)).await.unwrap_or(false) {
                tracing::error!("nats-server does not store events although the disk takes data: it is started again");
                self.restart.notify_one();
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}
