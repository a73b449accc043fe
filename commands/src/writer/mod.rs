//! The one active writer: decides commands in memory, in order, and makes the events durable in
//! batches. While a batch is being stored the next one is decided.
//!
//! Every answer, a rejection too, waits until all that it may rest on is durable. If storing fails,
//! everything decided since is taken back, the state is read anew, and whoever asked is told that
//! nothing happened. When it cannot be known what was stored, the writer ends with an error, and
//! the process with it: starting again settles it.
//!
//! Cancel-safety: [`Writer::run`] must not be dropped while commands are under way, or their askers
//! are not answered (their commands are stored, or not, as a whole).

mod ask;
mod core;
mod keys;
mod run;

pub use ask::{Ask, IdempotencyKey, Refusal, WriterHandle};
pub use run::{Durable, Writer, WriterError};
