//! Netlink without a runtime: framing, requests and multicast subscriptions for rtnetlink, nfnetlink and generic
//! netlink.
//!
//! - [`Message`]: a request under construction; [`Attribute`], [`attributes`]: the attributes of a reply
//! - [`Socket`]: sends requests, several in one datagram, and collects the replies of each
//! - [`Subscription`]: receives notifications of multicast groups, and reports when the kernel dropped some
//! - [`generic`]: resolution of generic netlink families
//!
//! All calls are synchronous. The kernel processes a request within the `sendmsg` call that carries it, so the reply is
//! queued when that call returns and an asynchronous request gains nothing. [`Subscription`] is a file descriptor for a
//! reactor.
//!
//! Messages may contain keys of WireGuard devices, so message and receive buffers are zeroized on drop.

mod attribute;
mod error;
pub mod generic;
mod message;
mod option;
mod socket;
mod subscription;
#[cfg(test)]
mod tests;

pub use attribute::{Attribute, MalformedAttribute, attributes, find};
pub use error::{Refusal, RequestError};
pub use message::{
    HEADER_LEN, Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE, Nest, Reply,
    replies,
};
pub use socket::{Completion, Protocol, Socket};
pub use subscription::{Subscription, SubscriptionError};

/// Size of the receive buffers, in bytes. The kernel splits a dump into datagrams of at most 32 KiB (`netlink_dump` in
/// `net/netlink/af_netlink.c`).
const DATAGRAM_MAX: usize = 64 << 10;
