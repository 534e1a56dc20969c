//! The way out of review: the queue, and the arbiter that decides which decision counts.
