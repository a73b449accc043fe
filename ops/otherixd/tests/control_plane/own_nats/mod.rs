//! `otherixd run --nats`: the control plane on a NATS that it does not start, with an operator and a system account of
//! somebody else.

pub(crate) mod cluster;
mod daemon;
mod one_server;
mod three_servers;
