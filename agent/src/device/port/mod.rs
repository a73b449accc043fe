//! What taps and VTEPs share: both are locked ports of a managed or unmanaged bridge.

pub mod action;
pub(super) mod apply;
