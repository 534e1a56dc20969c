//! A model server for tests and load: OpenAI- and Anthropic-style, answers by rules, faults by scenario.
//!
//! | file | decides or does |
//! |---|---|
//! | `scenario`, `written` | what a scenario file says; how its values are read |
//! | `faults` | which fault a request meets: by what its payload says, or by the time |
//! | `latency`, `draw` | how long an answer takes; repeatable chance |
//! | `conversation` | what a request asks: model, payload, schema, in either dialect |
//! | `answer`, `extract`, `template`, `generate`, `path` | the answer: rules first, the rest from the schema |
//! | `reply` | an answer and a fault as pieces in time; `openai`, `anthropic` word them |
//! | `memory` | which slots and tasks were seen before |
//! | `journal` | one line per request, and counts |
//! | `server` | HTTP |
//!
//! The same seed and the same requests meet the same faults and latencies, except that a timeline
//! goes by the clock. Nothing here knows the engine or the pipeline.

mod answer;
mod anthropic;
mod conversation;
mod draw;
mod extract;
mod faults;
mod generate;
mod journal;
mod latency;
mod memory;
mod openai;
mod path;
mod reply;
mod scenario;
mod server;
mod template;
mod written;

pub use faults::Fault;
pub use journal::Summary;
pub use scenario::{REFERENCE, Scenario, ScenarioError};
pub use server::serve;

#[cfg(test)]
mod tests;
