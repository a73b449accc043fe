//! Restarts nats-server when it accepts events but does not store them: after the disk was full, it does not resume
//! storing by itself, even when there is free space again. A server that somebody else has started is left alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use otherix_commands::relay::Relayed;
use otherix_runtime::LogLimit;
use otherix_transport::Connection;
use tokio::sync::{Notify, watch};

use crate::nats::has_free_space;

/// Interval between checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Consecutive publishes without an acknowledgement (each times out after seconds) that indicate a fault.
const MAX_UNANSWERED: u64 = 2;

/// Pause after a restart before the next check.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// What is said about a server that is not restarted.
static STUCK: LogLimit = LogLimit::new();

/// Monitors the NATS store.
pub(crate) struct NatsWatchdog {
    pub(crate) state: PathBuf,
    pub(crate) connection: Connection,
    pub(crate) relayed: watch::Receiver<Relayed>,
    /// Whether the clients' mirror makes no progress.
    pub(crate) mirror_stuck: watch::Receiver<bool>,
    /// Requests a restart of the server; `None` if somebody else has started it.
    pub(crate) restart: Option<Arc<Notify>>,
}

impl NatsWatchdog {
    /// Runs until the future is dropped.
    pub(crate) async fn run(self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let stuck = self.relayed.borrow().unanswered >= MAX_UNANSWERED || *self.mirror_stuck.borrow();
            if !stuck || !self.connection.is_connected() {
                continue;
            }
            let Some(restart) = &self.restart else {
                // In a cluster, this is also so while another server becomes the leader of the stream.
                if let Some(count) = STUCK.hit() {
                    tracing::error!(count, "NATS does not store events: check its servers, their log and their disks");
                }
                continue;
            };
            let state = self.state.clone();
            if tokio::task::spawn_blocking(move || has_free_space(&state)).await.unwrap_or(false) {
                tracing::error!("nats-server does not store events although the disk has free space; restarting it");
                restart.notify_one();
                tokio::time::sleep(RESTART_PAUSE).await;
            }
        }
    }
}
