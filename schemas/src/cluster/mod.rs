//! The cluster as a whole: its epochs, and its state at a glance.

mod event;
mod status;

pub use self::event::*;
pub use self::status::*;
