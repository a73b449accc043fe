//! Users, people and programs that make requests: definition, commands, queries, events, view, and the registry by
//! which requests are admitted.

mod callers;
mod command;
mod event;
mod query;
mod spec;
mod view;

pub use self::callers::*;
pub use self::command::*;
pub use self::event::*;
pub use self::query::*;
pub use self::spec::*;
pub use self::view::*;
