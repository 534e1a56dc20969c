//! Many tasks at once: bounds, drain, shutdown.
