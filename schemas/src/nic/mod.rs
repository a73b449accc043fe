//! NICs of VMs: tap name, events and view. A NIC is created and deleted with its VM and has no commands of its own.

mod event;
mod spec;
mod view;

pub use self::event::*;
pub use self::spec::*;
pub use self::view::*;
