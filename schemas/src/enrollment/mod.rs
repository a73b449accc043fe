//! How machines become nodes: join tokens, the keys of nodes, and the registry of both.
//!
//! A node has a NATS key of its own, made on the machine. A join token permits a machine to have its key registered,
//! as a new node or, if the token names it, as one that exists. See docs/adr/0029.

mod command;
mod event;
mod lookup;
mod registry;
mod view;

pub use self::command::*;
pub use self::event::*;
pub use self::lookup::*;
pub use self::registry::*;
pub use self::view::*;
