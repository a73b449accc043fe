//! The write side of otherix: what may happen is decided ([`domain`]), made durable ([`journal`],
//! [`writer`]), carried to the stream ([`relay`]) and asked for over NATS ([`service`]).

pub mod clock;
pub mod config;
pub mod domain;
pub mod journal;
pub mod recovery;
pub mod relay;
pub mod service;
pub mod writer;
