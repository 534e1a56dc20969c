//! Turns bytes into a task, or into a reason why they cannot be one.
