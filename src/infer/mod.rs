//! Asks models: picks one of the line-up, makes one try, classifies what happened, decides what next.
//!
//! | file | decides or does |
//! |---|---|
//! | `model`, `provider` | what a model is; what is known of providers without being told |
//! | `prompt` | renders a question; a payload is data in it, never instructions |
//! | `failure`, `sorting` | what kinds of failure there are and what each means; how a reply is sorted |
//! | `retry`, `allowance`, `breaker` | pure policy: waits, budgets, when a model may be called |
//! | `openai`, `anthropic`, `sse`, `structured` | the two dialects, their streams, schemas they can be held to |
//! | `attempt` | one request to one model, under its timeouts |
//! | `call`, `decide` | one slot: permit, journal, try, classify, decide, store; what comes next |
//! | `models` | the running side: one breaker and one client per endpoint |
//! | `observe` | the metrics |
//!
//! An answer counts only with a terminal finish signal. Nothing here reads an answer's content.

mod allowance;
mod answer;
mod anthropic;
mod attempt;
mod breaker;
mod call;
mod decide;
mod failure;
mod model;
mod models;
mod observe;
mod openai;
mod prompt;
pub mod provider;
mod retry;
mod sorting;
mod sse;
mod structured;
#[cfg(test)]
mod tests;

pub use allowance::Allowance;
pub use answer::{Answer, Ended, TryNote, Usage};
pub use call::{Call, Called};
pub use failure::Class;
pub use model::{Api, Model, Price, Timeouts};
pub use models::{Availability, Change, ModelView, Models, SetUpError};
pub use prompt::{Prompt, PromptError, Request, Turn};
