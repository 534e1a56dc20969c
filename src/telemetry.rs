//! Logs and metrics: every name that leaves the process.
