//! The read side of otherix: the read models are kept up to date from the events ([`projection`]) or
//! made anew ([`rebuild`]), and questions about them are answered ([`query`], [`service`]).

mod apply;
pub mod projection;
pub mod query;
pub mod rebuild;
pub mod service;
