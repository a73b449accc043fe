//! Compares the journal's tree with what is known of the log elsewhere.

use otherix_schemas::error::Causes;
use otherix_tlog::{Hash, RightEdge, TileBuilder, TreeHead, VerifiedTiles};

use super::follow::{FollowError, LogFollower, Tree};
use super::handle::HeardNode;
use super::stop::{CheckpointOrigin, LogStop};
use crate::store::EventStore;

impl<S: EventStore> LogFollower<S> {
    /// Compares the events of the last tile with the journal: whoever has changed them has not made the tree again.
    pub(super) async fn check_last(&self, tree: &Tree, builder: &TileBuilder) -> Result<(), FollowError> {
        let Some(tile) = builder.partial().find(|tile| tile.tile().level() == 0) else { return Ok(()) };
        let before = builder.head().size() - u64::from(tile.tile().width());
        let after = tree.numbering.position_of(before);
        let entries = self.inputs.store.read(after, u32::from(tile.tile().width())).await?;
        for (entry, hash) in entries.iter().zip(tile.hashes()) {
            if Hash::of_leaf(&entry.body) != *hash {
                let difference = format!("the event at position {} is not the one that was signed", entry.position);
                self.contradicted(CheckpointOrigin::File, difference);
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn node_heard(&mut self, tree: &mut Tree, heard: HeardNode) -> Result<(), FollowError> {
        let HeardNode { node, checkpoint } = heard;
        if let Some(note) = checkpoint {
            let difference = self.compare(tree, CheckpointOrigin::Node(node), &note).await?;
            self.handle.compared(node, difference);
        }
        self.told.insert(node);
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
                let kept = note.to_owned();
                self.blocking(tree, move |tiles, epoch| tiles.keep_contradiction(epoch, &kept)).await?;
                self.contradicted(from, text.clone());
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

    pub(super) fn contradicted(&self, from: CheckpointOrigin, difference: String) {
        if self.handle.stopped().is_some_and(|stop| matches!(stop, LogStop::Contradiction { .. })) {
            return;
        }
        let stop = LogStop::Contradiction { from, difference };
        tracing::error!(
            reason = %stop,
            hint = "somebody has changed or replaced the journal: compare it with backups and `otherix audit export`; \
                after `otherixd restore --new-epoch` a new log begins",
            "the transparency log signs no checkpoints any more; commands go on"
        );
        self.handle.set_stopped(Some(stop));
    }
}

/// How the journal differs from a checkpoint of more events.
pub(super) fn ahead(head: &TreeHead, size: u64) -> String {
    format!("it has {} events, and the journal {size}", head.size())
}
