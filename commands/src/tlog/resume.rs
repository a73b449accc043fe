//! How the follower continues after a start.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use otherix_schemas::error::Causes;
use otherix_schemas::position::{Epoch, Position};
use otherix_tlog::{TileBuilder, TreeHead};

use super::compare::ahead;
use super::follow::{FollowError, LogFollower, Tree};
use super::handle::Published;
use super::numbering::LeafNumbering;
use super::stop::CheckpointOrigin;
use super::tiles::{TileStore, TileStoreError};
use crate::store::EventStore;

/// The tiles of a tree that is made again: those of what was signed stay as they are until it is known to continue it.
pub(super) fn rebuilt_path(log: &Path) -> PathBuf {
    log.with_extension("rebuilt.db")
}

/// Deletes the database of a tree that was made again.
fn remove_rebuilt(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = OsString::from(path);
        file.push(suffix);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

impl<S: EventStore> LogFollower<S> {
    /// Runs something on the tree's tiles, away from other tasks.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        tree: &Tree,
        work: impl FnOnce(&TileStore, Epoch) -> Result<T, TileStoreError> + Send + 'static,
    ) -> Result<T, FollowError> {
        self.run_on(&tree.tiles, work).await
    }

    /// Runs something on the log's database, away from other tasks.
    pub(super) async fn in_log<T: Send + 'static>(
        &self,
        tree: &Tree,
        work: impl FnOnce(&TileStore, Epoch) -> Result<T, TileStoreError> + Send + 'static,
    ) -> Result<T, FollowError> {
        self.run_on(&tree.log, work).await
    }

    async fn run_on<T: Send + 'static>(
        &self,
        store: &Arc<TileStore>,
        work: impl FnOnce(&TileStore, Epoch) -> Result<T, TileStoreError> + Send + 'static,
    ) -> Result<T, FollowError> {
        let (store, epoch) = (Arc::clone(store), self.epoch);
        let task = self.inputs.runtime.run_blocking("log database", move || work(&store, epoch));
        Ok(task.await.map_err(|_| FollowError::Interrupted)??)
    }

    /// Opens the database, and continues the tree of its newest checkpoint; or begins a tree beside it, if its tiles
    /// are not those of the journal. Nothing in it counts as compared yet.
    pub(super) async fn resume(&mut self) -> Result<Tree, FollowError> {
        self.recent.clear();
        let numbering = LeafNumbering::new(self.inputs.store.gaps().await?);
        let (path, epoch) = (self.inputs.path.clone(), self.epoch);
        let open = move || {
            remove_rebuilt(&rebuilt_path(&path)).map_err(TileStoreError::Rebuilt)?;
            let log = TileStore::open(&path)?;
            log.begin(epoch)?;
            let (checkpoint, contradictions) = (log.checkpoint(epoch)?, log.contradictions(epoch)?);
            Ok::<_, TileStoreError>((log, checkpoint, contradictions))
        };
        let opened = self.inputs.runtime.run_blocking("open the log", open).await;
        let (log, checkpoint, contradictions) = opened.map_err(|_| FollowError::Interrupted)??;
        let log = Arc::new(log);
        let mut tree = Tree {
            log: Arc::clone(&log),
            tiles: Arc::clone(&log),
            builder: TileBuilder::default(),
            numbering,
            position: Position::ZERO,
            signed: 0,
            complete: Vec::new(),
            is_stored: true,
            unpublished: None,
        };
        // After a contradiction the tiles may be those of another history than the journal's.
        let mut is_continued = contradictions.is_empty();
        if let Some(note) = checkpoint {
            let signed = self.policy.verify(note.as_bytes()).map_err(|_| FollowError::OtherKey)?;
            let head = *signed.checkpoint().head();
            is_continued = is_continued && self.continues(&mut tree, &note, head).await?;
            tree.signed = head.size();
            tree.unpublished = Some(note.clone());
            let position = tree.numbering.position_of(head.size());
            self.handle.publish(Published { note, head, position, signed_at: None });
        }
        if !is_continued {
            let path = rebuilt_path(&self.inputs.path);
            let open = move || TileStore::open(&path);
            let opened = self.inputs.runtime.run_blocking("open the log", open).await;
            tree.tiles = Arc::new(opened.map_err(|_| FollowError::Interrupted)??);
        }
        self.handle.set_tiles(log);
        if !self.handle.is_contradicted() {
            self.handle.set_stopped(None);
        }
        Ok(tree)
    }

    /// Continues the tree of the newest checkpoint. Returns whether that is possible: otherwise it is made again.
    async fn continues(&self, tree: &mut Tree, note: &str, head: TreeHead) -> Result<bool, FollowError> {
        let size = tree.numbering.size_at(self.inputs.durable.borrow().position);
        if head.size() > size {
            self.contradicted(tree, CheckpointOrigin::File, note, ahead(&head, size)).await?;
            return Ok(false);
        }
        let damaged = |error: String| {
            tracing::error!(error, "the tiles of the transparency log are damaged: making them again");
            Ok(false)
        };
        let resumed = self.blocking(tree, move |mut tiles, _| Ok(TileBuilder::resume(&head, &mut tiles)));
        let builder = match resumed.await? {
            Ok(builder) => builder,
            Err(error) => return damaged(Causes(&error).to_string()),
        };
        match self.check_last(tree, head).await {
            Ok(None) => {
                tree.position = tree.numbering.position_of(head.size());
                tree.builder = builder;
                Ok(true)
            }
            Ok(Some(difference)) => {
                self.contradicted(tree, CheckpointOrigin::File, note, difference).await?;
                Ok(false)
            }
            Err(FollowError::Tree(error)) => damaged(error),
            Err(error) => Err(error),
        }
    }
}
