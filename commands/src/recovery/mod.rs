//! What an operator can do when the stream has events that the event store lacks, because the store was restored from
//! an older backup: [`adopt`] appends them to the store, [`restore`] gives them up and begins a new epoch. Both plan
//! first, and change nothing until the plan is executed; both may be killed at any point and started again.

pub mod adopt;
pub mod given_up;
pub mod restore;
