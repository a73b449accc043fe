//! NATS for every otherix process: who connects and how ([`connection`]), requests with their
//! errors ([`request`]), the serving of requests ([`service`]), and
//! the events in order without a gap ([`feed`]).

pub mod connection;
pub mod credentials;
pub mod feed;
pub mod request;
pub mod service;

pub use connection::{Connection, Endpoint};
pub use credentials::Credentials;
