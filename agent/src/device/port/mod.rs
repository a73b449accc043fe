//! What taps and VTEPs share: both are locked bridge ports.

pub mod action;
pub(super) mod apply;
