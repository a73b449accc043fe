//! The write side of otherix: decides commands ([`domain`]), stores events ([`store`], [`writer`]), copies them to the
//! stream ([`relay`]), keeps the transparency log ([`tlog`]) and what was refused ([`refusals`]), and serves command
//! requests over NATS ([`service`]).

pub mod config;
pub mod domain;
pub mod recovery;
pub mod refusals;
pub mod relay;
pub mod service;
mod sqlite_copy;
pub mod store;
pub mod tlog;
pub mod writer;

pub use sqlite_copy::CopyError;
