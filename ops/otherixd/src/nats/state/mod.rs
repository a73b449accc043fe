//! The current state as key-value buckets. In the account `CONTROL`, the control plane writes them from the read
//! models; in the account `STATE`, people read mirrors, into which nothing can be put. Both can be deleted at any time,
//! and are made again.

mod mirrors;
mod named;
mod publisher;
mod streams;

pub(crate) use mirrors::StateMirrors;
pub(crate) use publisher::StatePublisher;
