//! The embedded engine: one process, one directory, a log of its own with redb behind it.
