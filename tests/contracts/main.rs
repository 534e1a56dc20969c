//! What the project promises about itself: form, dependencies, published records.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod commands;
mod dependencies;
mod layout;
mod records;
#[path = "../rig/schemas.rs"]
mod schemas;
mod source;
mod twins;
