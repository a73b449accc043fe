//! The read side of otherix: the read models are kept up to date from the events ([`projection`]) or
//! made anew ([`rebuild`]), and questions about them, and about what nodes say of the mesh meanwhile ([`mesh`]), are answered
//! ([`query`], [`service`]).

mod apply;
pub mod mesh;
pub mod projection;
pub mod query;
pub mod rebuild;
pub mod service;
