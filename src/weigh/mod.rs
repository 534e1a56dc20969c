//! Decides how sure we are of an answer, and whether a person must look.
//!
//! **Confidence of a field** = estimated probability that a qualified reviewer would leave this
//! value unchanged. Until there are labels to calibrate with, every number says so: its basis
//! begins with `uncalibrated` and lists what went into it.
//!
//! Pure: no clock, no chance (the draw for sampling is an argument), no model. Nothing here changes
//! an answer, and no doubt ever raises a confidence.

mod confidence;
mod escalate;

pub use confidence::{Confidence, Evidence, FieldConfidence, weigh};
pub use escalate::{LINE, ReviewRules, SAMPLE, Start, Verdict, Why, draw_of, verdict};
