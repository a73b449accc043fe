//! Networks: definition, rules, commands, queries, events and view.

mod change;
mod command;
mod event;
mod query;
mod rules;
mod spec;
mod view;

pub use self::change::*;
pub use self::command::*;
pub use self::event::*;
pub use self::query::*;
pub use self::spec::*;
pub use self::view::*;
