//! The two ways out when the stream has events that the journal lacks, because the journal was restored from an older backup:
//! [`adopt`] takes them over, [`restore`] gives them up and begins a new epoch. Both plan first, and change nothing until the
//! plan is carried out; both may be killed at any line and begun again.

pub mod adopt;
pub mod restore;
