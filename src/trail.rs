//! Everything that happened to a task on the way.
