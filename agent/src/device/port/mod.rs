//! What taps and VTEPs have in common: both are locked ports of a managed or unmanaged bridge.

pub mod action;
pub(super) mod apply;
