//! The one active writer: decides commands in memory, in order, and makes the events durable in batches. While a batch
//! is stored, the next one is decided.
//!
//! Every answer, a rejection too, waits until everything it may depend on is durable. If storing fails, everything
//! decided since is discarded, the state is loaded again, and the callers receive an error that says so. If it is
//! unknown what was stored, the writer ends with an error, and the process with it: the next start reads it from the
//! store.
//!
//! Cancel-safety: [`Writer::run`] must not be dropped while commands are in progress, or their callers get no answer
//! (their commands are stored, or not, as a whole).

mod decider;
mod decision_log;
mod idempotency;
mod metrics;
mod request;
mod run;
mod snapshots;

pub use metrics::WriterMetrics;
pub use request::{Cause, CommandRequest, DecisionOrigin, IdempotencyKey, Refusal, WriterHandle};
pub use run::{Durable, StoredBatch, Writer, WriterError};
