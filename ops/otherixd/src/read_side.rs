//! The read side: read models and their history, in the state folder.

use std::sync::Arc;

use otherix_projections::follow::{EventReader, Follower};
use otherix_projections::history::{self, History, HistoryFollower};
use otherix_projections::read_models::{self, ReadModels};
use otherix_projections::service::{Inputs, StreamPosition};
use otherix_runtime::Runtime;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;
use tokio::sync::watch;

use crate::args::StateFolder;
use crate::error::BoxError;

/// The read models and their history.
pub(crate) struct ReadSide {
    pub(crate) models: ReadModels,
    history: History,
    followers: Followers,
}

/// What keeps read models and history up to date.
pub(crate) struct Followers {
    models: Follower,
    history: HistoryFollower,
}

impl ReadSide {
    /// Opens both. Those of another cluster, or ahead of the journal, are outdated and rebuilt.
    pub(crate) async fn open(
        state: &StateFolder,
        cluster: ClusterId,
        head: Position,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, BoxError> {
        let (state, blocking) = (state.clone(), Arc::clone(&runtime));
        let open = move || {
            let (path, runtime) = (state.read_models(), Arc::clone(&blocking));
            let (models_follower, models) = match read_models::open(&path, cluster, head, Arc::clone(&runtime)) {
                Err(error @ (read_models::OpenError::OtherCluster(_) | read_models::OpenError::Ahead { .. })) => {
                    tracing::warn!(reason = %error, "rebuilding the read models");
                    state.remove_read_models()?;
                    read_models::open(&path, cluster, head, runtime)?
                }
                other => other?,
            };
            let (history_follower, history) = history::open(&state.history(), cluster, head, blocking)?;
            let followers = Followers { models: models_follower, history: history_follower };
            Ok(Self { models, history, followers })
        };
        runtime.run_blocking("open read models", open).await?
    }

    /// What queries are answered from, and what keeps it up to date.
    pub(crate) fn split(
        self,
        head: watch::Receiver<Position>,
        events: Arc<dyn EventReader>,
        stream: StreamPosition,
    ) -> (Inputs, Followers) {
        let Self { models, history, followers } = self;
        (Inputs { models, history, head, events, stream }, followers)
    }
}

impl Followers {
    /// Follows the events until `head` is closed.
    pub(crate) async fn run(self, head: watch::Receiver<Position>, events: Arc<dyn EventReader>) {
        let Self { models, history } = self;
        tokio::join!(models.run(head.clone(), Arc::clone(&events)), history.run(head, events));
    }
}
