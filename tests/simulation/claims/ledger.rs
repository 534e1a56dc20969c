//! The ledger's scripts: the product's own functions, and the switches around them.
//!
//! Each script is one atomic step: it takes the compact entry there, calls `tidegate::dedupe`, and
//! brings the entry back. A switch is put in front of the product's function or after it, so the
//! product's code stays as it is.

mod admission;
mod marks;
mod slots;

pub(crate) use admission::{Ask, Verdict, admit, admit_decision, refuse};
pub(crate) use marks::{close, expire, moved};
pub(crate) use slots::{Start, Which, bar, release, start, store};
