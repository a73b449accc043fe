//! Nodes: joining, reports, heartbeats, commands, queries, events and view.

mod ask;
mod capacity;
mod command;
mod condition;
mod cordon;
mod event;
mod heartbeat;
mod label;
mod query;
mod report;
mod view;

pub use self::ask::*;
pub use self::capacity::*;
pub use self::command::*;
pub use self::condition::*;
pub use self::cordon::*;
pub use self::event::*;
pub use self::heartbeat::*;
pub use self::label::*;
pub use self::query::*;
pub use self::report::*;
pub use self::view::*;
