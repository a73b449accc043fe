//! Networks: definition, rules, commands, events and view.

mod command;
mod event;
mod rules;
mod spec;
mod view;

pub use self::command::*;
pub use self::event::*;
pub use self::spec::*;
pub use self::view::*;
