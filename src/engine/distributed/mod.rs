//! What the engine for many processes decides: which partitions are worked on, which records are
//! complete, what goes into a transaction, when the ledger may be asked.
//!
//! "The ledger elects, the log decides": the ledger says which record may publish for a key, the
//! transaction alone says whether it has. A record's outputs and its completion are in the same
//! transaction, so a record that is not complete has never published, and one that is never will again.
//!
//! ```text
//!  group says ──► Assignment ──► Do           offsets, epochs: one lease, one epoch
//!                    │ Tracker                 what is open of one partition
//!  handed in ──► Committer ───► Act            one transaction at a time: outputs and offsets of one moment
//!                    │ metadata                what lies beside an offset
//!  connection ──► Link ───────► Step           in which order a process comes back to the ledger
//! ```
//!
//! All of it takes events and returns what to do. Nothing here does I/O, waits, or reads a clock: what
//! carries it out is a client of a broker and a store, and none is part of this version.

pub mod assignment;
pub mod committer;
pub mod link;
pub mod metadata;
pub mod tracker;
