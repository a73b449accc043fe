//! The cluster as a whole: its epochs.

mod event;

pub use self::event::*;
