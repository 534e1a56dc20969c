//! A broker and a store in memory, as mean as real ones: sessions expire unheard, transactions end late
//! and out of order, replies get lost, a ledger forgets, records vanish, one process is cut off or stopped and
//! goes on, processes die between any two steps.
//!
//! ```text
//!  World ─┬─ log      partitions, transactions, what a read_committed reader sees
//!         ├─ group    members, generations, cooperative assignment, committed offsets
//!         └─ member   one client: carries out orders over the two, with faults in between
//!  Store ──── claims, heartbeats, connections
//! ```
//!
//! Tests of the whole program reach it over a socket: `served` keeps a world for each installation, `remote`
//! is the client. Both are built for tests alone.
//!
//! All of it runs on the clock of its runtime, which a test pauses, and draws every delay and fault from
//! one seed. It decides nothing about Tidegate's promises: those are checked by whoever drives it.

mod group;
mod log;
mod member;
#[cfg(feature = "simulator")]
mod opened;
mod reader;
#[cfg(feature = "simulator")]
mod remote;
#[cfg(feature = "simulator")]
pub mod served;
mod store;
#[cfg(feature = "simulator")]
mod wire;
mod world;

pub use member::SimulatedBroker;
#[cfg(feature = "simulator")]
pub use opened::{address, connect};
pub use reader::SimulatedLog;
#[cfg(feature = "simulator")]
pub use remote::Remote;
pub use store::{Reached, SimulatedStore, Snapshot};
pub use world::{CutOff, Faults, Point, Process, World};
