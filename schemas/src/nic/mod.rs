//! NICs of VMs: tap name, events and view. A NIC is created and deleted with its VM; it has no commands.

mod event;
mod spec;
mod view;

pub use self::event::*;
pub use self::spec::*;
pub use self::view::*;
