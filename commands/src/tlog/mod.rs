//! The transparency log over the journal (docs/adr/0031, 0032): a follower of the event store that builds the tree over
//! the events' bytes, stores tiles, and signs checkpoints about once a second while there is something new.
//!
//! It has no part in the writer's path: commands neither wait for it nor fail with it. It signs nothing beyond the last
//! durable event, nothing before it is stored, and never again once it has seen a checkpoint of its own key that the
//! journal does not continue: in its database, on the stream, or kept by a node.
//!
//! Cancel-safety: [`LogFollower::run`] may be dropped at any await; what it stores, it stores in transactions.

mod check;
mod compare;
mod follow;
mod handle;
mod numbering;
mod resume;
mod stop;
mod tiles;

pub use check::{CheckedLog, LogCheckError, check_log, head_of_epoch};
pub use follow::{CHECKPOINT_INTERVAL, CheckpointSink, Inputs, LogFollower, SinkError};
pub use handle::{LogHandle, LogUnavailable};
pub use numbering::LeafNumbering;
pub use stop::LogStop;
pub use tiles::{TileStore, TileStoreError};
