//! Nodes: joining, reports, heartbeats, commands, events and view.

mod command;
mod event;
mod heartbeat;
mod report;
mod view;

pub use self::command::*;
pub use self::event::*;
pub use self::heartbeat::*;
pub use self::report::*;
pub use self::view::*;
