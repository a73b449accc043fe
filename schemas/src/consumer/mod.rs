//! Durable consumers of the stream of events: where a reader of events has got to. They are no part of the state, and
//! no event is about them. Definition, requests, view.

mod filter;
mod request;
mod spec;
mod view;

pub(crate) use self::request::REQUESTS;
pub use self::request::{ConsumerByName, CreateConsumer, DeleteConsumer, ListConsumers, MyConsumers};
pub use self::spec::{
    CONSUMERS_MAX, ConsumerDraft, ConsumerName, ConsumerNameError, ConsumerSpec, ConsumerStart, ConsumerStartError,
};
pub use self::view::ConsumerView;
