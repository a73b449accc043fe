//! The contract that all parts of otherix share: values that are validated once, commands, events with their frozen
//! stored shapes, views, errors and NATS subjects.
//!
//! A resource is a module: [`network`], [`vm`], [`nic`], [`node`], [`user`], [`enrollment`], [`cluster`]. Its requests
//! are declared in its `command` module, its events in its `event` module; subjects, permissions, routing, JSON Schemas
//! and the AsyncAPI document follow from the declarations.
//!
//! Pure: nothing here does I/O, reads a clock or generates random numbers.

pub mod asyncapi;
pub mod bucket;
pub mod change;
pub mod cloudevent;
pub mod cluster;
pub mod command;
pub mod consumer;
pub mod decision_chain;
pub mod enrollment;
pub mod error;
pub mod event;
pub mod id;
pub mod image;
mod json_field;
pub mod json_schema;
pub mod log;
pub mod network;
pub mod nic;
pub mod node;
pub mod outcome;
pub mod permission;
pub mod position;
pub mod projection;
pub mod refusal;
pub mod request;
pub mod schema;
pub mod subject;
pub mod timestamp;
pub mod user;
pub mod value;
pub mod violations;
pub mod vm;
