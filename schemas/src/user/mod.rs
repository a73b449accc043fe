//! Users: people and programs that make requests.

mod caller;

pub use self::caller::*;
