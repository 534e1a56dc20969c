//! A scratch place for one test: a directory, a configuration, and the log read while nobody runs.
