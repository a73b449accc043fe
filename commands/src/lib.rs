//! The write side of otherix: decides commands ([`domain`]), stores events ([`store`], [`writer`]), copies them to the
//! stream ([`relay`]), keeps the transparency log ([`tlog`]), and serves command requests over NATS ([`service`]).

pub mod config;
pub mod domain;
pub mod recovery;
pub mod relay;
pub mod service;
pub mod store;
pub mod tlog;
pub mod writer;
