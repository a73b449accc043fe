//! Compares the journal's tree with what is known of the log elsewhere.

use std::sync::Arc;

use otherix_schemas::error::Causes;
use otherix_tlog::tile::TILE_WIDTH;
use otherix_tlog::{Hash, RightEdge, TreeHead, VerifiedTiles};

use super::follow::{FollowError, LogFollower, Tree};
use super::handle::Heard;
use super::resume::rebuilt_path;
use super::stop::{CheckpointOrigin, LogStop};
use crate::store::EventStore;

impl<S: EventStore> LogFollower<S> {
    /// Compares the events of the last tile with the journal, as whoever has changed them may not have made the tree
    /// again. Returns how they differ.
    pub(super) async fn check_last(&self, tree: &Tree, head: TreeHead) -> Result<Option<String>, FollowError> {
        let Some(last) = head.size().checked_sub(1) else { return Ok(None) };
        let index = last / u64::from(TILE_WIDTH);
        let hashes = self.blocking(tree, move |tiles, _| {
            let opened = VerifiedTiles::open(&head, tiles);
            Ok(opened.and_then(|mut tiles| tiles.hashes(0, index).map(<[Hash]>::to_vec)))
        });
        let hashes = hashes.await?.map_err(|error| FollowError::Tree(Causes(&error).to_string()))?;
        let after = tree.numbering.position_of(index * u64::from(TILE_WIDTH));
        let entries = self.inputs.store.read(after, u32::from(TILE_WIDTH)).await?;
        let changed = entries.iter().zip(&hashes).find(|(entry, hash)| Hash::of_leaf(&entry.body) != **hash);
        Ok(changed.map(|(entry, _)| format!("the event at position {} is not the one that was signed", entry.position)))
    }

    /// Compares the tree with the checkpoints in the log's database. If it was made again and continues them all, its
    /// tiles replace those of the log.
    pub(super) async fn compare_stored(&mut self, tree: &mut Tree) -> Result<(), FollowError> {
        let stored = self.in_log(tree, |log, epoch| Ok((log.checkpoint(epoch)?, log.contradictions(epoch)?)));
        let (checkpoint, contradictions) = stored.await?;
        for note in checkpoint.into_iter().chain(contradictions) {
            self.compare(tree, CheckpointOrigin::File, &note).await?;
        }
        if tree.is_rebuilt() && !self.handle.is_contradicted() {
            self.store_partial(tree).await?;
            let path = rebuilt_path(&self.inputs.path);
            self.in_log(tree, move |log, _| log.adopt(&path)).await?;
            tree.tiles = Arc::clone(&tree.log);
        }
        Ok(())
    }

    pub(super) async fn heard(&mut self, tree: &mut Tree, heard: Heard) -> Result<(), FollowError> {
        let Heard { from, checkpoint } = heard;
        let difference = match checkpoint {
            Some(note) => self.compare(tree, from, &note).await?,
            None => None,
        };
        if let CheckpointOrigin::Node(node) = from {
            self.handle.compared(node, difference);
            self.told.insert(node);
        }
        Ok(())
    }

    /// Compares a checkpoint with the tree. Returns how they differ; nothing is signed any more then. Checkpoints of
    /// other keys and epochs are ignored.
    pub(super) async fn compare(
        &mut self,
        tree: &mut Tree,
        from: CheckpointOrigin,
        note: &str,
    ) -> Result<Option<String>, FollowError> {
        let Ok(verified) = self.policy.verify(note.as_bytes()) else { return Ok(None) };
        let head = *verified.checkpoint().head();
        if self.recent.get(&head.size()) == Some(head.root()) && self.handle.stopped().is_none() {
            return Ok(None);
        }
        self.catch_up(tree).await?;
        let own = tree.builder.head();
        let difference = if head.size() > own.size() {
            Some(ahead(&head, own.size()))
        } else {
            self.store_partial(tree).await?;
            let size = head.size();
            let edge = self.blocking(tree, move |tiles, _| {
                Ok(VerifiedTiles::open(&own, tiles).and_then(|mut tiles| RightEdge::from_source(size, &mut tiles)))
            });
            let edge = edge.await?.map_err(|error| FollowError::Tree(Causes(&error).to_string()))?;
            (edge.head() != head).then(|| {
                let root = edge.root();
                format!("the first {size} events have the root {root} now, and had {}", head.root())
            })
        };
        match &difference {
            Some(text) => {
                self.contradicted(tree, from, note, text.clone()).await?;
            }
            None => self.remember(&head),
        }
        Ok(difference)
    }

    async fn store_partial(&self, tree: &mut Tree) -> Result<(), FollowError> {
        if !tree.is_stored {
            let tiles = tree.unstored();
            self.blocking(tree, move |store, epoch| store.store(epoch, &tiles, None)).await?;
            tree.is_stored = true;
        }
        Ok(())
    }

    /// Keeps a checkpoint that the journal does not continue, and stops signing.
    pub(super) async fn contradicted(
        &self,
        tree: &Tree,
        from: CheckpointOrigin,
        note: &str,
        difference: String,
    ) -> Result<(), FollowError> {
        let kept = note.to_owned();
        self.in_log(tree, move |log, epoch| log.keep_contradiction(epoch, &kept)).await?;
        if self.handle.is_contradicted() {
            return Ok(());
        }
        let stop = LogStop::Contradiction { from, difference };
        tracing::error!(
            reason = %stop,
            hint = "somebody has changed or replaced the journal: compare it with backups and `otherix audit export`; \
                after `otherixd restore --new-epoch` a new log begins",
            "the transparency log signs no checkpoints any more; commands go on"
        );
        self.handle.set_stopped(Some(stop));
        Ok(())
    }
}

/// How the journal differs from a checkpoint of more events.
pub(super) fn ahead(head: &TreeHead, size: u64) -> String {
    format!("it has {} events, and the journal {size}", head.size())
}
