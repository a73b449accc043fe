//! Virtual machines: definition, rules, commands, queries, events and view.

mod apply;
mod command;
mod console;
mod event;
mod label;
mod machine;
mod machine_rules;
mod moving;
mod power;
mod query;
mod rules;
mod spec;
mod view;

pub use self::apply::*;
pub use self::command::*;
pub use self::console::*;
pub use self::event::*;
pub use self::label::*;
pub use self::machine::*;
pub use self::machine_rules::*;
pub use self::moving::*;
pub use self::power::*;
pub use self::query::*;
pub use self::spec::*;
pub use self::view::*;
