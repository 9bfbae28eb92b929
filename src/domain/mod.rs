//! The nouns of adit and their state machines. Knows no I/O, no async, no SQL, no tensors.

pub mod batch;
pub mod catalog;
pub mod chat;
pub mod code;
pub mod confidence;
pub mod fact;
pub mod id;
pub mod item;
pub mod job;
pub mod lease;
pub mod message;
pub mod model;
pub mod omission;
pub mod task;
pub mod usage;
