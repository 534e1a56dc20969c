//! What needs real services beside us; each test starts its own and ends it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod kafka_broker;
mod kafka_cluster;
mod kafka_log;
mod kafka_outcomes;
mod kafka_proxy;
