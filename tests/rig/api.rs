//! The HTTP API of a running process, as a client sees it.
