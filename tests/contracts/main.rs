//! What the project promises about itself: form, dependencies, published records.

mod commands;
mod dependencies;
mod layout;
mod records;
#[path = "../rig/schemas.rs"]
mod schemas;
mod source;
