//! What every part of otherix agrees on: ids and values that cannot hold a bad value, commands,
//! events with their frozen stored shapes, views, errors and NATS subjects.
//!
//! Pure: nothing here does I/O, reads a clock or draws a random number.

pub mod cloudevent;
pub mod command;
pub mod error;
pub mod event;
pub mod id;
pub mod json_schema;
pub mod network;
pub mod outcome;
pub mod permission;
pub mod position;
pub mod request;
pub mod rules;
pub mod subject;
pub mod timestamp;
pub mod value;
pub mod view;
pub mod violations;
pub mod vm;
